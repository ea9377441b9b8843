/** When collected things are written: no two writes at a time, and no failure stands in the way of the next. */

import { expect, test, vi } from "vitest";
import { FlushSchedule } from "../../../src/catalog/flush-schedule.ts";
import { until } from "../../support/until.ts";

/** Writes that end when the test says so. */
function slowWrites() {
  const ends: { resolve(): void; reject(error: Error): void }[] = [];
  const failures: unknown[] = [];
  const schedule = new FlushSchedule(
    () => new Promise((resolve, reject) => ends.push({ resolve, reject })),
    (error) => failures.push(error),
  );
  return { schedule, ends, failures };
}

test("a write begins when the one before it has ended, also when that fails", async () => {
  const { schedule, ends, failures } = slowWrites();
  const first = schedule.now();
  const second = schedule.now();
  await until(() => ends.length === 1);
  ends[0]?.reject(new Error("the first one"));
  await expect(first).rejects.toThrow("the first one");
  await until(() => ends.length === 2);
  ends[1]?.resolve();
  await second;
  expect(failures).toEqual([]);
});

test("several wishes for later are one write, whose failure is told", async () => {
  const { schedule, ends, failures } = slowWrites();
  schedule.later(1);
  schedule.later(60_000);
  await until(() => ends.length === 1);
  const failure = new Error("not now");
  ends[0]?.reject(failure);
  await until(() => failures.length === 1);
  expect(failures).toEqual([failure]);
  // The wish is spent: this one is new.
  schedule.later(1);
  await until(() => ends.length === 2);
});

test("a write at once is the one that was wished for later", async () => {
  vi.useFakeTimers();
  try {
    const { schedule, ends } = slowWrites();
    schedule.later(5);
    void schedule.now();
    expect(vi.getTimerCount()).toBe(0);
    await vi.runAllTimersAsync();
    expect(ends).toHaveLength(1);
  } finally {
    vi.useRealTimers();
  }
});
