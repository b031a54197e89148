/** The phone's camera: asked for in words, the back one first, off when nobody looks. */

import type {FrameResult, Recognizer, Session} from 'delf-edge';
import {say, wanted} from './languages.js';
import {get, show} from './page.js';

const LONG_SIDE = 640; // pixels of a frame that is looked at
const EVERY = 200; // milliseconds between two looks
const HINTS: Readonly<Record<string, string>> = {
  black: 'tooDark', 'blown out': 'tooBright', flat: 'nothingToSee', blurred: 'holdStill',
};

/** What torch and zoom need; not yet in the types of TypeScript. */
interface Abilities {
  readonly torch?: boolean;
  readonly zoom?: {readonly min: number; readonly max: number; readonly step: number};
}

export class CameraView {
  private stream: MediaStream | null = null;
  private session: Session | null = null;
  private timer = 0;
  private torch = false;
  private wake: WakeLockSentinel | null = null;

  /**
   * @param recognizer answers the frames.
   * @param onResult called with what a frame led to, and the frame as a JPEG where it was asked for.
   * @param onGone called when the camera was taken away.
   */
  constructor(
    private readonly recognizer: Recognizer,
    private readonly onResult: (result: FrameResult, frame: () => Promise<Blob | null>) => void,
    private readonly onGone: (reason: string) => void,
  ) {
    document.addEventListener('visibilitychange', () => void (document.hidden ? this.pause() : this.resume()));
    get('torch').onclick = () => void this.switchTorch();
    get<HTMLInputElement>('zoom').oninput = () => void this.apply({zoom: Number(get<HTMLInputElement>('zoom').value)});
  }

  get open(): boolean {
    return this.session !== null;
  }

  /** Opens the camera. Rejects with the browser's error where there is none or it is not allowed. */
  async start(): Promise<void> {
    this.session ??= this.recognizer.session({identify: {languages: wanted()}});
    await this.begin();
  }

  private async begin(): Promise<void> {
    const video: MediaTrackConstraints = {facingMode: {ideal: 'environment'}, width: {ideal: 1280}, height: {ideal: 960}};
    this.stream = await navigator.mediaDevices.getUserMedia({video, audio: false});
    if (!this.open) return this.pause(); // closed while the visitor was asked
    const view = get<HTMLVideoElement>('video');
    view.srcObject = this.stream;
    await view.play();
    const track = this.stream.getVideoTracks()[0];
    track.onended = () => {
      this.stop();
      this.onGone('cameraGone');
    };
    const abilities = (track.getCapabilities?.() ?? {}) as Abilities;
    show('torch', abilities.torch === true);
    show('zoom-field', abilities.zoom !== undefined && abilities.zoom.max > abilities.zoom.min);
    if (abilities.zoom !== undefined) {
      const zoom = get<HTMLInputElement>('zoom');
      Object.assign(zoom, {min: String(abilities.zoom.min), max: String(abilities.zoom.max), step: String(abilities.zoom.step || 0.1)});
      zoom.value = String((track.getSettings() as {zoom?: number}).zoom ?? abilities.zoom.min);
    }
    this.wake = await navigator.wakeLock?.request('screen').catch(() => null) ?? null;
    this.next();
  }

  private next(): void {
    clearTimeout(this.timer);
    if (this.stream !== null) this.timer = setTimeout(() => void this.look(), EVERY) as unknown as number;
  }

  private async look(): Promise<void> {
    const view = get<HTMLVideoElement>('video');
    const session = this.session;
    if (session === null || this.stream === null) return;
    if (view.readyState < 2 || view.videoWidth === 0) return this.next();
    try {
      const scale = Math.min(1, LONG_SIDE / Math.max(view.videoWidth, view.videoHeight));
      const size = {resizeWidth: Math.round(view.videoWidth * scale), resizeHeight: Math.round(view.videoHeight * scale)};
      const frame = await createImageBitmap(view, {...size, resizeQuality: 'medium'});
      const kept = document.createElement('canvas');
      kept.width = frame.width;
      kept.height = frame.height;
      kept.getContext('2d')!.drawImage(frame, 0, 0);
      const result = await session.look(frame);
      if (session !== this.session) return;
      const hint = HINTS[result.verdict] ?? (result.state === 'present' ? '' : 'pointCamera');
      const line = get('hint');
      const text = hint === '' ? '' : say(hint);
      if (line.textContent !== text) line.textContent = text;
      line.hidden = text === '';
      this.onResult(result, () => new Promise(resolve => kept.toBlob(resolve, 'image/jpeg', 0.9)));
    } catch (error) {
      if (session !== this.session) return;
      this.stop();
      this.onGone(error instanceof Error ? error.message : String(error));
      return;
    }
    this.next();
  }

  /** The page is in the background: the camera and its light go off. */
  private async pause(): Promise<void> {
    clearTimeout(this.timer);
    this.stream?.getTracks().forEach(track => track.stop());
    this.stream = null;
    await this.wake?.release().catch(() => undefined);
    this.wake = null;
    this.torch = false;
  }

  private async resume(): Promise<void> {
    if (!this.open || this.stream !== null) return;
    await this.session!.tick().catch(() => undefined);
    await this.begin().catch(error => {
      this.stop();
      this.onGone((error as Error).name);
    });
  }

  /** Closes the camera. */
  stop(): void {
    void this.pause();
    this.session?.reset();
    this.session = null;
    get<HTMLVideoElement>('video').srcObject = null;
  }

  private async switchTorch(): Promise<void> {
    this.torch = !this.torch;
    await this.apply({torch: this.torch});
    get('torch').setAttribute('aria-pressed', String(this.torch));
  }

  private async apply(setting: Record<string, unknown>): Promise<void> {
    const track = this.stream?.getVideoTracks()[0];
    await track?.applyConstraints({advanced: [setting as MediaTrackConstraintSet]}).catch(() => undefined);
  }
}
