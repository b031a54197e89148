// Builds the visitor's page into dist/visit/ from what build.js has made (--fake: a page of its own in build/visit/ whose
// recogniser tells places by the colour of the photo, for tests of the page without WebAssembly).
import {cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {build} from 'esbuild';

import {licenceTexts} from '../licences.js';

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(dirname(here));
const fake = process.argv.includes('--fake');
const out = fake ? 'build/visit' : 'dist/visit';
const common = {bundle: true, target: 'es2022', logLevel: 'warning', legalComments: 'none', minify: !fake};

rmSync(out, {recursive: true, force: true});
mkdirSync(out, {recursive: true});
for (const name of ['index.html', 'visit.css', 'visit.webmanifest', 'icon.svg', 'languages']) {
  cpSync(join('visit', name), join(out, name), {recursive: true});
}
const recognizer = fake ? './visit/tests/fake.ts' : './src/client.ts';
await build({...common, entryPoints: {visit: 'visit/src/main.ts'}, outdir: out, format: 'esm', alias: {'delf-edge': recognizer}});
const policy = /Content-Security-Policy" content="([^"]+)"/.exec(readFileSync('visit/index.html', 'utf8'))[1];
const define = {POLICY: JSON.stringify(policy)};
await build({...common, entryPoints: {sw: 'visit/src/sw.ts'}, outdir: out, format: 'iife', define});
if (fake) {
  await build({...common, entryPoints: {worker: 'visit/tests/worker.ts'}, outdir: out, format: 'iife'});
} else {
  cpSync('dist/worker.js', join(out, 'worker.js'));
  mkdirSync(join(out, 'wasm'));
  for (const name of readdirSync('dist/wasm')) cpSync(join('dist/wasm', name), join(out, 'wasm', name));
  writeFileSync(join(out, 'licences.txt'), licenceTexts());
}
