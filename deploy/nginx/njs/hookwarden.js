// Asks hookwarden (`dialect: verdict`) about a request and then sends the very same request on, or its reply back. For
// an nginx with njs, 0.7 or later. nginx.conf beside this does with it what ../nginx.conf does without.

const HOP_BY_HOP = ['connection', 'content-length', 'date', 'keep-alive', 'server', 'te', 'trailer', 'transfer-encoding', 'upgrade'];
// All that hookwarden says to the application; the variables are named in nginx.conf.
const TOLD = ['delivery-id', 'duplicate', 'endpoint', 'event-type', 'provider', 'reason', 'secret-id', 'verified-by', 'tag-mode'];

async function gate(r) {
  let verdict;
  try {
    // Without `body` the subrequest has the request's own, byte for byte.
    verdict = await r.subrequest('/_hookwarden', { method: r.method, args: r.variables.args || '' });
  } catch (problem) {
    r.error('hookwarden was not asked: ' + problem.message);
    r.return(503);
    return;
  }
  // Both must agree: a handshake is answered with 200 too.
  if (verdict.status === 200 && verdict.headersOut['X-Hookwarden-Verdict'] === 'allow') {
    TOLD.forEach((name) => {
      r.variables['hookwarden_' + name.replace(/-/g, '_')] = verdict.headersOut['X-Hookwarden-' + name] || '';
    });
    r.internalRedirect('@app');
    return;
  }
  if (verdict.headersOut['X-Hookwarden-Verdict'] === undefined) {
    // nobody answered, or somebody else did
    r.return(502);
    return;
  }
  for (const name in verdict.headersOut) {
    const lower = name.toLowerCase();
    if (lower !== 'x-hookwarden-verdict' && HOP_BY_HOP.indexOf(lower) === -1) {
      r.headersOut[name] = verdict.headersOut[name];
    }
  }
  r.return(verdict.status, verdict.responseBuffer);
}

export default { gate };
