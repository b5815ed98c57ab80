-- A check pasted into nginx, by libcrypto: the secret is that of measure.py.
local ffi = require "ffi"
ffi.cdef [[
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
unsigned char *HMAC(const EVP_MD *hash, const void *key, int key_length, const unsigned char *data, size_t length,
                    unsigned char *mac, unsigned int *mac_length);
int CRYPTO_memcmp(const void *a, const void *b, size_t length);
]]
local crypto = ffi.load("libcrypto.so.3")
local sha256 = crypto.EVP_sha256()
local mac, length = ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")
local secret = "a secret of the benchmarks"
local hook = {}

local function hex(byte)
  return string.format("%02x", string.byte(byte))
end

function hook.verify()
  ngx.req.read_body()
  local body = ngx.req.get_body_data() or ""
  crypto.HMAC(sha256, secret, #secret, body, #body, mac, length)
  local wanted = "sha256=" .. ffi.string(mac, 32):gsub(".", hex)
  local got = ngx.var.http_x_hub_signature_256 or ""
  if #got ~= #wanted or crypto.CRYPTO_memcmp(wanted, got, #got) ~= 0 then
    return ngx.exit(401)
  end
end

return hook
