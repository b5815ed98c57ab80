// What the providers' own packages say of requests. Reads a JSON array of
// {name, provider, method, url, headers, body, secret, public_key, settings, now} and prints {name: "accepts" | "refuses: why"}.
// The clock stands still at each request's `now`: some packages read it.
'use strict';

let now = 0;
const RealDate = Date;
global.Date = class extends RealDate {
  constructor(...rest) { if (rest.length) super(...rest); else super(now * 1000); }
  static now() { return now * 1000; }
};
const at = (path) => require(`./node_modules/${path}`);
const made = (module, ...names) => { for (const name of names) if (module[name]) return module[name]; return module; };
const wants = (value) => { if (!value) throw new Error('said no'); };
// Some packages take the parsed body and write it out again.
const parsed = (request) => { const value = JSON.parse(request.body); if (JSON.stringify(value) !== request.body) throw new Error('another body'); return value; };

const judges = {
  'acuity': (r) => at('acuityscheduling').bodyParserVerify(r.secret)({ headers: r.headers }, {}, Buffer.from(r.body)),
  'anthropic': (r) => { const A = made(require('@anthropic-ai/sdk'), 'default'); new A({ apiKey: 'x', webhookKey: r.secret }).beta.webhooks.unwrap(r.body, { headers: r.headers, key: r.secret }); },
  'braintree': async (r) => { const b = require('braintree'); const form = new URLSearchParams(r.body); const gateway = new b.BraintreeGateway({ environment: b.Environment.Sandbox, merchantId: 'm', publicKey: r.settings.public_key, privateKey: r.secret }); await gateway.webhookNotification.parse(form.get('bt_signature') || '', form.get('bt_payload')); },
  'clerk': (r) => new (require('svix').Webhook)(r.secret).verify(r.body, r.headers),
  'cloudinary': (r) => { const c = require('cloudinary').v2; c.config({ cloud_name: 'x', api_key: 'x', api_secret: r.secret }); wants(c.utils.verifyNotificationSignature(r.body, Number(r.headers['x-cld-timestamp']), r.headers['x-cld-signature'], 7200)); },
  'coinbase-commerce': (r) => require('coinbase-commerce-node').Webhook.verifySigHeader(r.body, r.headers['x-cc-webhook-signature'], r.secret),
  'contentful': (r) => { const url = new URL(r.url); wants(require('@contentful/node-apps-toolkit').verifyRequest(r.secret, { method: r.method, path: url.pathname + url.search, headers: r.headers, body: r.body })); },
  'cronofy': (r) => { const C = require('cronofy'); wants(new C({ client_id: 'x', client_secret: r.secret }).hmacValid({ hmac: r.headers['cronofy-hmac-sha256'], body: r.body })); },
  'discord': async (r) => wants(await require('discord-interactions').verifyKey(Buffer.from(r.body), r.headers['x-signature-ed25519'], r.headers['x-signature-timestamp'], r.public_key)),
  'dodopayments': (r) => { const D = made(require('dodopayments'), 'default'); new D({ bearerToken: 'x', webhookKey: r.secret }).webhooks.unwrap(r.body, { headers: r.headers }); },
  'easypost': (r) => { const E = made(require('@easypost/api'), 'default'); new E('x').Utils.validateWebhook(Buffer.from(r.body), r.headers, r.secret); },
  'finch': (r) => { const F = made(require('@tryfinch/finch-api'), 'default'); new F({ accessToken: 'x' }).webhooks.verifySignature(r.body, r.headers, r.secret); },
  'getstream': (r) => { const { StreamChat } = require('stream-chat'); wants(new StreamChat('k', r.secret).verifyWebhook(r.body, r.headers['x-signature'])); },
  'github': async (r) => wants(await (await import('@octokit/webhooks-methods')).verify(r.secret, r.body, r.headers['x-hub-signature-256'])),
  'gocardless': (r) => { const g = require('gocardless-nodejs/webhooks'); g.parse(r.body, r.secret, r.headers['webhook-signature']); },
  'gr4vy': (r) => at('@gr4vy/sdk/lib/webhooks.js').verifyWebhook(r.body, r.secret, r.headers['x-gr4vy-webhook-signatures'], r.headers['x-gr4vy-webhook-timestamp'], 300),
  'kontent-ai': (r) => wants(require('@kontent-ai/webhook-helper').signatureHelper.isValidSignatureFromString(r.body, r.secret, r.headers['x-kontent-ai-signature'])),
  'line': (r) => wants(require('@line/bot-sdk').validateSignature(r.body, r.secret, r.headers['x-line-signature'])),
  'lithic': (r) => { const L = made(require('lithic'), 'default'); new L({ apiKey: 'x' }).webhooks.verifySignature(r.body, r.headers, r.secret); },
  'liveblocks': (r) => { try { new (require('@liveblocks/node').WebhookHandler)(r.secret).verifyRequest({ headers: r.headers, rawBody: r.body }); } catch (error) { if (!/Unknown event type/.test(error.message)) throw error; } },
  'livekit': async (r) => new (require('livekit-server-sdk').WebhookReceiver)(r.settings.api_key, r.secret).receive(r.body, r.headers.authorization),
  'mailtrap': (r) => wants(at('mailtrap/dist/lib/webhooks/verify-signature.js').default(r.body, r.headers['mailtrap-signature'], r.secret)),
  'mercadopago': (r) => at('mercadopago/dist/utils/webhook/index.js').WebhookSignatureValidator.validate({ xSignature: r.headers['x-signature'], xRequestId: r.headers['x-request-id'], dataId: new URL(r.url).searchParams.get('data.id'), secret: r.secret, toleranceSeconds: 300 }),
  'messagebird': (r) => require('messagebird/lib/webhook-signature-jwt').verify(r.url, Buffer.from(r.body), r.headers['messagebird-signature-jwt'], require('crypto').createSecretKey(Buffer.from(r.secret))),
  'metronome': (r) => { const M = made(require('@metronome/sdk'), 'default'); new M({ bearerToken: 'x' }).webhooks.verifySignature(r.body, r.headers, r.secret); },
  'modern-treasury': (r) => { const M = made(require('modern-treasury'), 'default'); wants(new M({ apiKey: 'x', organizationID: 'y', webhookKey: r.secret }).webhooks.validateSignature(r.body, r.headers)); },
  'mux': async (r) => { const M = made(require('@mux/mux-node'), 'default'); await new M({ tokenId: 'x', tokenSecret: 'y' }).webhooks.verifySignature(r.body, r.headers, r.secret); },
  'nango': async (r) => { const { Nango } = await import('@nangohq/node'); wants(new Nango({ secretKey: r.secret }).verifyIncomingWebhookRequest(r.body, r.headers)); },
  'notion': async (r) => wants(await require('@notionhq/client').verifyWebhookSignature({ body: r.body, signature: r.headers['x-notion-signature'], verificationToken: r.secret })),
  'onfido': (r) => { const { WebhookEventVerifier } = require('@onfido/api'); new WebhookEventVerifier(r.secret).readPayload(r.body, r.headers['x-sha2-signature']); },
  'openai': async (r) => { const O = made(require('openai'), 'default'); await new O({ apiKey: 'x', webhookSecret: r.secret }).webhooks.verifySignature(r.body, r.headers, r.secret); },
  'opennode': (r) => { const form = new URLSearchParams(r.body); const m = at('opennode/dist/client.js'); wants(made(m, 'OpenNodeClient', 'default').prototype.verifySignature.call({ api_key: r.secret }, { id: form.get('id'), hashed_order: form.get('hashed_order') })); },
  'paddle': async (r) => { const { Paddle } = require('@paddle/paddle-node-sdk'); wants(await new Paddle('x').webhooks.isSignatureValid(r.body, r.secret, r.headers['paddle-signature'])); },
  'polar': (r) => { const { validateEvent, WebhookVerificationError } = require('@polar-sh/sdk/webhooks'); try { validateEvent(r.body, r.headers, r.secret); } catch (error) { if (error instanceof WebhookVerificationError) throw error; } },
  'portone': async (r) => (await import('@portone/server-sdk')).Webhook.verify(r.secret, r.body, r.headers),
  'pusher': (r) => { const P = require('pusher'); wants(new P({ appId: '1', key: r.headers['x-pusher-key'], secret: r.secret }).webhook({ headers: { ...r.headers, 'content-type': 'application/json' }, rawBody: r.body }).isValid()); },
  'razorpay': (r) => wants(require('razorpay').validateWebhookSignature(r.body, r.headers['x-razorpay-signature'], r.secret)),
  'replicate': async (r) => wants(await require('replicate').validateWebhook({ id: r.headers['webhook-id'], timestamp: r.headers['webhook-timestamp'], signature: r.headers['webhook-signature'], body: r.body, secret: r.secret })),
  'resend': (r) => new (require('resend').Resend)('re_x').webhooks.verify({ payload: r.body, headers: { id: r.headers['svix-id'], timestamp: r.headers['svix-timestamp'], signature: r.headers['svix-signature'] }, webhookSecret: r.secret }),
  'retell': async (r) => wants(await at('retell-sdk/lib/webhook_auth.js').verify(r.body, r.secret, r.headers['x-retell-signature'])),
  'sanity': async (r) => require('@sanity/webhook').assertValidSignature(r.body, r.headers['sanity-webhook-signature'], r.secret),
  'sendgrid': (r) => { const { EventWebhook } = require('@sendgrid/eventwebhook'); const e = new EventWebhook(); wants(e.verifySignature(e.convertPublicKeyToECDSA(r.public_key), r.body, r.headers['x-twilio-email-event-webhook-signature'], r.headers['x-twilio-email-event-webhook-timestamp'])); },
  'signalwire': (r) => wants(at('@signalwire/compatibility-api/lib/webhooks/webhooks.js').validateRequest(r.secret, r.headers['x-signalwire-signature'], r.url, Object.fromEntries(new URLSearchParams(r.body)), true)),
  'square': async (r) => wants(await require('square').WebhooksHelper.verifySignature({ requestBody: r.body, signatureHeader: r.headers['x-square-hmacsha256-signature'], signatureKey: r.secret, notificationUrl: r.public_url })),
  'standard-webhooks': (r) => new (require('standardwebhooks').Webhook)(r.secret).verify(r.body, r.headers),
  'stripe': (r) => { const S = require('stripe'); new S('sk_x').webhooks.constructEvent(r.body, r.headers['stripe-signature'], r.secret, 300, undefined, now * 1000); },
  'svix': (r) => new (require('svix').Webhook)(r.secret).verify(r.body, r.headers),
  'terra': async (r) => wants(await at('terra-api/dist/cjs/utils.js').verifyTerraWebhookSignature(r.body, r.headers['terra-signature'], r.secret)),
  'twilio': (r) => wants(require('twilio').validateRequest(r.secret, r.headers['x-twilio-signature'], r.url, fields(r.body))),
  'webflow': async (r) => wants(await at('webflow-api/wrapper/WebhooksClient.js').Client.prototype.verifySignature.call({}, { headers: r.headers, body: r.body, secret: r.secret })),
  'workos': async (r) => { const { WorkOS } = require('@workos-inc/node'); await new WorkOS('sk_x').webhooks.verifyHeader({ payload: parsed(r), sigHeader: r.headers['workos-signature'], secret: r.secret }); },
  'worldline': async (r) => at('onlinepayments-sdk-nodejs/lib/cjs/src/webhooks/validation.js').newSignatureValidator({ getSecretKey: async () => r.secret }).validate(r.body, r.headers),
};

/** A form's fields, repeated ones as a list. */
function fields(body) {
  const out = {};
  for (const [name, value] of new URLSearchParams(body)) out[name] = name in out ? [].concat(out[name], value) : value;
  return out;
}

async function main() {
  const requests = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  if (!requests.length) { process.stdout.write(JSON.stringify(Object.keys(judges))); return; }
  const told = {};
  for (const request of requests) {
    now = request.now;
    try { await judges[request.provider](request); told[request.name] = 'accepts'; }
    catch (error) { told[request.name] = `refuses: ${String(error && error.message || error).split('\n')[0].slice(0, 120)}`; }
  }
  process.stdout.write(JSON.stringify(told));
}
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
