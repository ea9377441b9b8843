/** Waits for something that happens elsewhere: looks again and again, and gives up with what was waited for. */

/** @throws when it is not true within the time */
export async function until(isTrue: () => Promise<boolean> | boolean, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${isTrue}`);
    await new Promise((resume) => setTimeout(resume, 10));
  }
}
