/** What is known of a place, and the points that prove it. */

import type {Answer, LandmarkInfo, Photo, Recognizer} from 'delf-edge';
import {number, say} from './languages.js';
import {get, show} from './page.js';

const MOST_POINTS = 60; // more hide the photo
let urls: string[] = [];

function addressOf(blob: Blob): string {
  const url = URL.createObjectURL(blob);
  urls.push(url);
  return url;
}

/** Empties the card and frees its pictures and sounds. */
export function clearCard(): void {
  urls.forEach(url => URL.revokeObjectURL(url));
  urls = [];
  show('card', false);
  for (const id of ['card-figure', 'card-audio', 'card-link', 'proof']) show(id, false);
  get<HTMLAudioElement>('card-audio').removeAttribute('src');
  get<HTMLImageElement>('card-picture').removeAttribute('src');
  get('card-text').replaceChildren();
  get<HTMLDetailsElement>('proof').open = false;
}

function paragraphs(text: string): HTMLElement[] {
  return text.split(/\n\s*\n/).filter(part => part.trim()).map(part => {
    const element = document.createElement('p');
    element.textContent = part.trim();
    return element;
  });
}

/** Shows a place. `answer` is null for one of the list of today, which has no points any more. */
export async function showPlace(recognizer: Recognizer, info: LandmarkInfo, answer: Answer | null): Promise<void> {
  clearCard();
  const title = get('card-title');
  title.textContent = info.title;
  title.lang = info.language ?? '';
  title.dir = 'auto';
  get('card-sure').textContent =
    answer === null ? '' : say(answer.probability >= 0.95 ? 'sure' : 'quiteSure', {points: number(answer.nInliers)});
  const text = get('card-text');
  text.lang = info.language ?? '';
  text.dir = 'auto';
  const summary = info.summary ?? '';
  text.replaceChildren(...paragraphs(summary), ...paragraphs(info.body ?? ''));
  if (text.childElementCount === 0) text.append(...paragraphs(say('noText')));
  const link = get('card-link').querySelector('a')!;
  if (info.link !== null && /^https?:\/\//.test(info.link)) {
    link.href = info.link;
    link.textContent = say('more');
    show('card-link', true);
  }
  show('card', true);
  const picture = info.media.find(item => item.type.startsWith('image/'));
  const sound = info.media.find(item => item.name === info.audio) ?? info.media.find(item => item.type.startsWith('audio/'));
  const [seen, heard] = await Promise.all([picture, sound].map(item =>
    item === undefined ? null : recognizer.media(info.slug, item.name).catch(() => null)));
  if (get('card-title') !== title || title.textContent !== info.title) return; // another place by now
  if (seen && picture) {
    const image = get<HTMLImageElement>('card-picture');
    image.src = addressOf(seen);
    image.alt = info.title;
    get('card-credit').textContent = picture.credit ?? '';
    show('card-figure', true);
  }
  if (heard) {
    const audio = get<HTMLAudioElement>('card-audio');
    audio.src = addressOf(heard);
    audio.setAttribute('aria-label', say('listen', {place: info.title}));
    show('card-audio', true);
  }
}

/** Shows "unknown", and what helps. */
export function showUnknown(): void {
  clearCard();
  get('card-title').textContent = say('unknown');
  get('card-title').lang = '';
  get('card-sure').textContent = '';
  get('card-text').lang = '';
  get('card-text').replaceChildren(...paragraphs(say('unknownHelp')));
  show('card', true);
}

/** Draws the matched points on the photo, if the visitor asks for them. */
export function offerPoints(photo: Exclude<Photo, VideoFrame>, answer: Answer): void {
  const proof = answer.proof;
  if (proof === null || !(photo instanceof Blob)) return;
  show('proof', true);
  const details = get<HTMLDetailsElement>('proof');
  get('proof-text').textContent = say('pointsText', {points: number(proof.query.length / 2)});
  details.ontoggle = async () => {
    if (!details.open) return;
    const canvas = get<HTMLCanvasElement>('proof-canvas');
    canvas.setAttribute('aria-label', say('pointsText', {points: number(proof.query.length / 2)}));
    const drawn = canvas.getContext('2d')!;
    const bitmap = await createImageBitmap(photo);
    const [width, height] = proof.querySize;
    const sideways = proof.turned % 180 !== 0;
    const scale = Math.min(1, 1200 / Math.max(width, height));
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    drawn.save();
    drawn.translate(canvas.width / 2, canvas.height / 2);
    drawn.rotate((proof.turned * Math.PI) / 180);
    const [w, h] = sideways ? [canvas.height, canvas.width] : [canvas.width, canvas.height];
    drawn.drawImage(bitmap, -w / 2, -h / 2, w, h);
    drawn.restore();
    bitmap.close();
    const step = Math.max(1, proof.query.length / 2 / MOST_POINTS);
    drawn.lineWidth = 2;
    for (let i = 0; Math.floor(i) < proof.query.length / 2; i += step) {
      const k = 2 * Math.floor(i);
      drawn.beginPath();
      drawn.arc((proof.query[k] + 0.5) * scale, (proof.query[k + 1] + 0.5) * scale, 6, 0, 7);
      drawn.fillStyle = '#ffb000';
      drawn.strokeStyle = '#000';
      drawn.fill();
      drawn.stroke();
    }
  };
}
