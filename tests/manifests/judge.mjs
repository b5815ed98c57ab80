// Judges custom resources by what their own projects publish, generated into npm packages from the Go types or CRDs.
//
// Documents come as a JSON array on standard input, and an array of arrays of problems goes out. Each is judged twice,
// because neither way sees all: the compiled schema knows what is required and which values are allowed, but takes any
// unknown field; TypeScript knows every field's name and type, and refuses one too many, but no pattern or range.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGES = {
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "security.istio.io": "@kubernetes-models/istio",
  "networking.istio.io": "@kubernetes-models/istio",
  "telemetry.istio.io": "@kubernetes-models/istio",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
};

function moduleOf(document) {
  const [group, version] = document.apiVersion.split("/");
  if (!(group in PACKAGES)) throw new Error(`no schema for ${document.apiVersion} ${document.kind}`);
  return `${PACKAGES[group]}/${group}/${version}/${document.kind}`;
}

async function bySchema(document) {
  const { [document.kind]: Kind } = await import(moduleOf(document));
  try {
    new Kind(document).validate();
    return [];
  } catch (error) {
    return error.message.split("\n");
  }
}

// One program for all documents: reading the declarations is what takes time.
function byType(documents) {
  const file = (index) => join(HERE, `document-${index}.ts`);
  const sources = new Map(
    documents.map((document, index) => [
      file(index),
      `import type { I${document.kind} } from "${moduleOf(document)}";\nexport const document: I${document.kind} = ${JSON.stringify(document, null, 1)};\n`,
    ]),
  );
  const options = {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: [],
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile } = host;
  host.fileExists = (name) => sources.has(name) || fileExists(name);
  host.readFile = (name) => sources.get(name) ?? readFileSync(name, "utf8");
  host.getSourceFile = (name, ...rest) =>
    sources.has(name) ? ts.createSourceFile(name, sources.get(name), options.target) : getSourceFile.call(host, name, ...rest);
  const program = ts.createProgram([...sources.keys()], options, host);
  return documents.map((_, index) =>
    ts
      .getPreEmitDiagnostics(program, program.getSourceFile(file(index)))
      .map((diagnostic) => ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n")),
  );
}

const documents = JSON.parse(readFileSync(0, "utf8"));
const types = byType(documents);
const problems = [];
for (const [index, document] of documents.entries()) {
  problems.push([...(await bySchema(document)), ...types[index]]);
}
process.stdout.write(JSON.stringify(problems));
