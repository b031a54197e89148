// Builds dist/ (and with --tests build/tests/): modules by esbuild, types by tsc, WebAssembly copied from the packages.
import {execFileSync} from 'node:child_process';
import {cpSync, mkdirSync, readdirSync, rmSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

import {build} from 'esbuild';

import {requireShipped} from './licences.js';

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(here);
const common = {bundle: true, target: 'es2022', logLevel: 'warning', legalComments: 'none', loader: {'.wasm': 'binary'}};

mkdirSync('build', {recursive: true});
execFileSync('node_modules/.bin/asc', ['kernels/kernels.ts', '--outFile', 'build/kernels.wasm', '-O3', '--runtime', 'stub', '--enable',
                                       'simd', '--noAssert', '--use', 'abort='], {stdio: 'inherit'});

if (process.argv.includes('--tests')) {
  rmSync('build/tests', {recursive: true, force: true});
  const entryPoints = readdirSync('tests').filter(name => name.endsWith('.test.ts')).map(name => join('tests', name));
  await build({...common, entryPoints, outdir: 'build/tests', platform: 'node', format: 'esm', packages: 'external',
               outExtension: {'.js': '.mjs'}});
} else {
  rmSync('dist', {recursive: true, force: true});
  await build({...common, entryPoints: ['src/index.ts'], outfile: 'dist/index.js', format: 'esm', minify: true});
  await build({...common, entryPoints: ['src/client.ts'], outfile: 'dist/client.js', format: 'esm', minify: true});
  // A classic worker, because LiteRT.js loads its WebAssembly with importScripts.
  const {metafile} = await build({...common, entryPoints: ['src/worker.ts'], outfile: 'dist/worker.js', format: 'iife', minify: true,
               metafile: true, define: {'import.meta.url': 'self.location.href'}});
  requireShipped(metafile);
  execFileSync('node_modules/.bin/tsc', ['--project', 'tsconfig.types.json'], {stdio: 'inherit'});
  mkdirSync('dist/wasm', {recursive: true});
  const litert = 'node_modules/@litertjs/core/wasm';
  // Plain, with threads, and for browsers without relaxed SIMD; not those that need JavaScript Promise Integration.
  for (const name of readdirSync(litert).filter(name => !name.includes('jspi'))) cpSync(join(litert, name), join('dist/wasm', name));
  cpSync('node_modules/@sqlite.org/sqlite-wasm/dist/sqlite3.wasm', 'dist/wasm/sqlite3.wasm');
}
