/** What a client is owed, held against PostgreSQL's own rules for messages (src/backend/tcop/postgres.c, copyfromparse.c). */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { countedReplies, ReplyLedger } from "../../../src/session/reply-ledger.ts";

/** A message of a client, and what its statement would do if the server ran it. */
interface Sent {
  readonly type: string;
  readonly does: "succeed" | "fail" | "copy" | "copyThenFail";
}

/** A reply, and the index of the message without which it would not have come. */
interface Reply {
  readonly type: string;
  readonly after: number;
}

const successes: Readonly<Record<string, string>> = {
  Q: "TCZ",
  F: "VZ",
  P: "1",
  B: "2",
  E: "C",
  C: "3",
  S: "Z",
};

/** What PostgreSQL answers, message by message; `state` tells where it stands after each. */
function answer(messages: readonly Sent[]): {
  readonly replies: readonly Reply[];
  readonly states: readonly { readonly isSkipping: boolean; readonly isCopyingIn: boolean }[];
} {
  const replies: Reply[] = [];
  const states: { isSkipping: boolean; isCopyingIn: boolean }[] = [];
  let isSkipping = false;
  let copy: Sent | undefined;
  messages.forEach((message, after) => {
    const say = (types: string) => {
      for (const type of types) replies.push({ type, after });
    };
    const { type, does } = message;
    const failCopy = () => {
      say(copy?.type === "Q" ? "EZ" : "E");
      isSkipping = copy?.type === "E";
      copy = undefined;
    };
    if (copy !== undefined) {
      // CopyGetData: Flush and Sync are ignored, data go on, everything else ends it and is used up by that.
      if (type === "c" && copy.does === "copy") {
        say(copy.type === "Q" ? "CZ" : "C");
        copy = undefined;
      } else if (!"dHS".includes(type)) failCopy();
    } else if (type === "S") {
      isSkipping = false;
      say(does === "fail" ? "EZ" : "Z");
    } else if (isSkipping || "cfdH".includes(type)) {
      // Skipped up to Sync; data and ends of copies that are over are ignored.
    } else if (does === "fail") {
      say("QF".includes(type) ? "EZ" : "E");
      isSkipping = !"QF".includes(type);
    } else if (does.startsWith("copy") && "QE".includes(type)) {
      say(type === "Q" ? "TCG" : "G");
      copy = message;
    } else if (type === "D") say(after % 2 === 0 ? "T" : "tn");
    else say(successes[type] ?? "");
    states.push({ isSkipping, isCopyingIn: copy !== undefined });
  });
  return { replies, states };
}

const sent: fc.Arbitrary<Sent> = fc.record({
  type: fc.constantFrom(..."QQPBDEEECSSFccfdH"),
  does: fc.constantFrom("succeed", "succeed", "succeed", "fail", "copy", "copy", "copyThenFail"),
});

function noteReply(ledger: ReplyLedger, type: string): void {
  if (type === "Z") ledger.noteReady("I");
  else if (type === "E") ledger.noteError();
  else if (type === "G") ledger.noteCopyIn();
  else if (countedReplies.includes(type)) ledger.noteReply();
}

/** The messages that the relay shows to the ledger; CopyData and Flush it only passes on. */
function noteSent(ledger: ReplyLedger, type: string): void {
  if (type !== "d" && type !== "H") ledger.noteSent(type.charCodeAt(0));
}

/** Plays both directions, in an order that `turns` chooses, and looks at the ledger after each step. */
function play(messages: readonly Sent[], turns: readonly boolean[], look: (at: Moment) => void): void {
  const { replies, states } = answer(messages);
  const ledger = new ReplyLedger();
  let sentCount = 0;
  let replyCount = 0;
  const hasReply = () => (replies[replyCount]?.after ?? messages.length) < sentCount;
  for (let turn = 0; sentCount < messages.length || hasReply(); turn += 1) {
    const isReplyNext = turns[turn % turns.length] === true;
    if (hasReply() && (isReplyNext || sentCount === messages.length)) {
      noteReply(ledger, replies[replyCount]?.type ?? "");
      replyCount += 1;
    } else {
      noteSent(ledger, messages[sentCount]?.type ?? "");
      sentCount += 1;
    }
    look({
      ledger,
      server: states[sentCount - 1] ?? { isSkipping: false, isCopyingIn: false },
      owed: replies
        .slice(replyCount)
        .filter(({ after }) => after < sentCount)
        .map(({ type }) => type),
      sent: messages.slice(0, sentCount).map(({ type }) => type),
    });
  }
}

interface Moment {
  readonly ledger: ReplyLedger;
  readonly server: { readonly isSkipping: boolean; readonly isCopyingIn: boolean };
  /** Replies that are still on their way. */
  readonly owed: readonly string[];
  readonly sent: readonly string[];
}

const turnsOf = fc.array(fc.boolean(), { minLength: 1, maxLength: 40 });
const runs = { numRuns: 5_000 };

describe("however the two directions mix", () => {
  test("the ledger is even only when nothing is on its way", () => {
    fc.assert(
      fc.property(fc.array(sent, { minLength: 1, maxLength: 14 }), turnsOf, (messages, turns) => {
        play(messages, turns, ({ ledger, owed }) => {
          if (ledger.isEven) expect(owed).toEqual([]);
        });
      }),
      runs,
    );
  });

  test("when everything has come, the ledger is even and stands where the server stands", () => {
    fc.assert(
      fc.property(fc.array(sent, { minLength: 1, maxLength: 14 }), turnsOf, (messages, turns) => {
        play(messages, turns, ({ ledger, server, owed }) => {
          if (owed.length > 0) return;
          expect({
            isEven: ledger.isEven,
            isCopyingIn: ledger.isCopyingIn,
            isSkipping: ledger.isSkipping,
          }).toEqual({ isEven: !server.isCopyingIn, ...server });
        });
      }),
      runs,
    );
  });

  test("every ReadyForQuery is counted", () => {
    fc.assert(
      fc.property(fc.array(sent, { minLength: 1, maxLength: 14 }), turnsOf, (messages, turns) => {
        const expected = answer(messages).replies.filter(({ type }) => type === "Z").length;
        let counted = 0;
        play(messages, turns, ({ ledger }) => {
          counted = ledger.readyCount;
        });
        expect(counted).toBe(expected);
      }),
      runs,
    );
  });

  test("a connection that could be given back has no implicit transaction open", () => {
    fc.assert(
      fc.property(fc.array(sent, { minLength: 1, maxLength: 14 }), turnsOf, (messages, turns) => {
        play(messages, turns, ({ ledger, server, owed }) => {
          if (!ledger.isEven || ledger.hasUnsynced || ledger.isSkipping) return;
          expect([owed, server]).toEqual([[], { isSkipping: false, isCopyingIn: false }]);
        });
      }),
      runs,
    );
  });
});
