/** Makes a time for what runs out, in whole milliseconds since the Unix epoch, that never goes back: the wall clock's, or what has
 *  passed since its last reading where the wall clock was set back. A jump forward lets things run out early, which is the
 *  safe side; a jump back never lets one live longer. */
export function createSteadyTime(clock: { now(): number; wallMs(): number }): () => number {
  let lastMs = clock.wallMs();
  let readAt = clock.now();
  return () => {
    const now = clock.now();
    lastMs = Math.max(clock.wallMs(), lastMs + (now - readAt));
    readAt = now;
    return Math.floor(lastMs);
  };
}
