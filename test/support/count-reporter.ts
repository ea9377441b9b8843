/** Reporter that ends every test run with one line of its own: `N passed, N failed` and what was skipped. */

import type { Reporter, SerializedError, TestModule } from "vitest/node";

/**
 * Counts tests, and as one failure each test file that could not be loaded and each error outside of
 * any test, so that a run which vitest calls failed never ends with `0 failed`.
 */
export class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    const { passed, failed, skipped } = countTests(modules, unhandledErrors.length);
    const tail = skipped === 0 ? "" : `, ${skipped} skipped`;
    // After the lines of the reporters before it, which also write when the run ends.
    process.once("exit", () => process.stdout.write(`${passed} passed, ${failed} failed${tail}\n`));
  }
}

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

function countTests(modules: readonly TestModule[], unhandledErrors: number): Counts {
  const counts = { passed: 0, failed: unhandledErrors, skipped: 0 };
  for (const module of modules) {
    counts.failed += module.errors().length;
    for (const suite of module.children.allSuites()) {
      counts.failed += suite.errors().length;
    }
    for (const test of module.children.allTests()) {
      const { state } = test.result();
      // A test that never got to run (its hook failed, the worker died) is a failure, not a skip.
      counts[state === "pending" ? "failed" : state] += 1;
    }
  }
  return counts;
}
