/** Whether PostgreSQL answers, for whoever asks: it is asked itself once a second at most, and one question at a time. */

/** How long an answer counts, in ms. */
const freshMs = 1_000;
/** An answer that takes longer is a no, in ms. */
const patienceMs = 2_000;

interface Question {
  readonly askedAtMs: number;
  readonly answer: Promise<boolean>;
  /** Also when nobody waits for it any more: another one would only take another connection. */
  isOpen: boolean;
}

/** @param ask a query that costs nothing; its failure of any kind is a no */
export function watchAvailability(ask: () => Promise<unknown>): () => Promise<boolean> {
  let last: Question | undefined;
  return () => {
    const now = performance.now();
    if (last !== undefined && (last.isOpen || now - last.askedAtMs < freshMs)) return last.answer;
    const asked = ask().then(
      () => true,
      () => false,
    );
    const question: Question = { askedAtMs: now, answer: withPatience(asked), isOpen: true };
    void asked.finally(() => {
      question.isOpen = false;
    });
    last = question;
    return question.answer;
  };
}

async function withPatience(asked: Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, patienceMs, false);
  });
  try {
    return await Promise.race([asked, late]);
  } finally {
    clearTimeout(timer);
  }
}
