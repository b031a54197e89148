/**
 * Keeps a camera from filling a queue: while one frame is being looked at, only the newest of the others waits. What it
 * replaces is let go at once.
 */
export class Newest<Frame, Result> {
  private busy = false;
  private waiting: {frame: Frame; now: number; resolve: (result: Result | PromiseLike<Result>) => void} | null = null;

  /**
   * @param look looks at a frame.
   * @param drop what a frame gives that is not looked at; it frees the frame.
   */
  constructor(private readonly look: (frame: Frame, now: number) => Promise<Result>, private readonly drop: (frame: Frame) => Result) {}

  give(frame: Frame, now: number): Promise<Result> {
    if (!this.busy) return this.run(frame, now);
    const {waiting} = this;
    if (waiting !== null) waiting.resolve(this.drop(waiting.frame));
    return new Promise(resolve => {
      this.waiting = {frame, now, resolve};
    });
  }

  private async run(frame: Frame, now: number): Promise<Result> {
    this.busy = true;
    try {
      return await this.look(frame, now);
    } finally {
      this.busy = false;
      const {waiting} = this;
      this.waiting = null;
      if (waiting !== null) waiting.resolve(this.run(waiting.frame, waiting.now));
    }
  }
}
