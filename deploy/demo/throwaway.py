"""Throw-away keys, certificates and secrets, for one run and for nothing else."""

import base64
import datetime
import ipaddress
import secrets

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

LIFETIME = datetime.timedelta(days=7)


def make_secrets(directory):
    """One file per provider in `directory`, each in the form in which its provider hands it out."""
    directory.mkdir(mode=0o700)
    texts = {
        "github": secrets.token_hex(32),
        "slack": secrets.token_hex(16),
        "stripe": "whsec_" + secrets.token_hex(16),
        "standard-webhooks": "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
        "smartsheet": secrets.token_hex(32),
        "webex": secrets.token_hex(32),
        "bracken": secrets.token_hex(32),
        "verify-token": secrets.token_hex(24),
    }
    for name, text in texts.items():
        (directory / name).write_text(text + "\n")
    make_key_pair(directory / "smartthings.key", directory / "smartthings.pem")


def make_key_pair(private_file, public_file):
    """The key that stands in for SmartThings' own, and the half of it that a receiver holds."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private_file.write_bytes(private_pem(key))
    public = key.public_key()
    public_file.write_bytes(
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def make_certificate(directory, *hosts):
    """`ca.crt`, and `tls.crt` with `tls.key` that it vouches for. The CA's own key is never written."""
    directory.mkdir(mode=0o700)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("hookwarden throw-away CA", "hookwarden throw-away CA", ca_key, ca_key, x509.BasicConstraints(True, 0))
    names = x509.SubjectAlternativeName([*map(x509.DNSName, hosts), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = certificate(hosts[0], "hookwarden throw-away CA", key, ca_key, x509.BasicConstraints(False, None), names)
    (directory / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(private_pem(key))


def certificate(subject, issuer, key, issuer_key, constraints, *extensions):
    name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if constraints.ca:
        builder = builder.add_extension(CA_KEY_USAGE, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def private_pem(key):
    # PKCS#8, which every reader here takes.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
