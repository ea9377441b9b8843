/** Reporter that ends every test run with what is not installed and one line of its own: `N passed, N failed`. */

import type { Reporter, SerializedError, TestModule } from "vitest/node";

/**
 * Counts tests, and as one failure each test file that could not be loaded and each error outside of
 * any test, so that a run which vitest calls failed never ends with `0 failed`.
 */
export class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    const { passed, failed, skipped } = countTests(modules, unhandledErrors.length);
    const tail = skipped === 0 ? "" : `, ${skipped} skipped`;
    const missing = findMissing(modules).map((name) => `skipped: ${name}\n`);
    const lines = `${missing.join("")}${passed} passed, ${failed} failed${tail}\n`;
    // After the lines of the reporters before it, which also write when the run ends.
    process.once("exit", () => process.stdout.write(lines));
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

/** The names under which `requireClient` skips what is not installed, each once. */
function findMissing(modules: readonly TestModule[]): string[] {
  const names = new Set<string>();
  for (const module of modules) {
    for (const test of module.children.allTests("skipped")) {
      if (/^needs .*not installed$/.test(test.name)) {
        names.add(test.name);
      }
    }
  }
  return [...names].sort();
}
