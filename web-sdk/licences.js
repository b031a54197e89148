// The packages that end up in what web-sdk ships: those of package-lock.json that are no tools of the developer.
import {existsSync, readFileSync} from 'node:fs';
import {join} from 'node:path';

/** Names of the packages, in the lock's order. */
export function shippedPackages() {
  const {packages} = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  return Object.entries(packages).filter(([path, {dev}]) => path && !dev).map(([path]) => path.replace(/^.*node_modules\//, ''));
}

/** Stops where esbuild has put code of another package into a file. */
export function requireShipped({inputs}) {
  const shipped = shippedPackages();
  for (const path of Object.keys(inputs)) {
    const name = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1];
    if (name !== undefined && !shipped.includes(name)) {
      throw new Error(`${path}: ${name} is for developers by package.json; move it to "dependencies", and its licence is listed`);
    }
  }
}

/** Name, version and licence of every one, with the text that its authors send along. */
export function licenceTexts() {
  const apache = `Packages under Apache-2.0 that send no text along are under this one:\n\n${readFileSync('../LICENSE', 'utf8')}`;
  return [...shippedPackages().map(licence), apache].join('\n');
}

function licence(name) {
  const folder = join('node_modules', name);
  const {version, license, homepage = ''} = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const text = join(folder, 'LICENSE');
  if (!existsSync(text) && license !== 'Apache-2.0') throw new Error(`${name}: ${license}, without a text; add it here`);
  return `${name} ${version}, ${license} ${homepage}\n${existsSync(text) ? `\n${readFileSync(text, 'utf8')}` : ''}`;
}
