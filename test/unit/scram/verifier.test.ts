import { describe, expect, test } from "vitest";
import {
  createMockVerifier,
  createScramVerifier,
  createScramVerifierSync,
  formatScramVerifier,
  parseScramVerifier,
  type ScramVerifier,
} from "../../../src/scram/verifier.ts";

/** `CREATE ROLE … PASSWORD`, then pg_authid.rolpassword, on PostgreSQL 15. */
const fromPostgres: readonly [password: string, verifier: string][] = [
  [
    "pencil",
    "SCRAM-SHA-256$4096:XcET9TnrNuCuRyvyk2AKzQ==$4ijmbGQjEosdr661CRQlWFTz7J7t+RpoxLlphdgXyTk=:6H/SEuqR0P9okKboyHKMrKg0RUrwq06/uCO+0nwm99g=",
  ],
  [
    "\u2168",
    "SCRAM-SHA-256$4096:R7fGy09SfowYtrcXViVMNg==$f9/KDqPWqyFaTp9a1wi3DXkbi2gwzGlrtzjSWiNLrDk=:+KqimEEEySF79F0eqH9FF3E0QYGLRs1UH5UzpCeq+A0=",
  ],
  [
    "I\u00adX",
    "SCRAM-SHA-256$4096:KVnpAzC+XOejliMa/p0Q9w==$6Eno8wDan0OJwNg6K/oTewGwOfSfyJaorX6MyFc5smw=:A9J/PBRW+47QnhUUDwB9POinEL3/1L/j5IxvvKx43J0=",
  ],
  [
    "a\u00a0b\u3000c",
    "SCRAM-SHA-256$4096:xgOyprmyE14NLeowV6ls1A==$ObVPrc9nlvm2lGO1f7r/pR4ZSq7WYl3RkYtns43yDZ4=:HVX17iDVvmI8xMGlqKyl3yLHvCEBJE/S6uT/w+cYA6M=",
  ],
  [
    "\u0627\u0031",
    "SCRAM-SHA-256$4096:IHLk1SoC+uqYJ0X1WLJVBA==$9Hm0SlbkfUBLj5x8cmsfN/4ATunoed1GrbTcpyZP+eA=:SR3muqpYtwHHfPhnuzv+AC7FIduC9cFRo8wQ2WkCjB0=",
  ],
  [
    "\u0627\u0031\u0628",
    "SCRAM-SHA-256$4096:Y/6zowB9f3q8YdjNPF6foA==$QCgYE7RZGdcnjgyWcBuUs3JEngVwJhWKjmyY9YuhXeQ=:S+BT8zh2bwnWtXSoogqi2Ou5gmojvwLu9qbDBKmMoOo=",
  ],
  [
    "x\u0221\ufb01",
    "SCRAM-SHA-256$4096:Q3ceUn0W8Bm6QsYfzyyqyw==$9VPuR8QdZ0Pt2wHSI/qhWJRkPbiD1mduN1r2hUXOFSM=:jsfAJO96Zxh7QNce0/v/EVYGRpfFB1f3VDLNx6KyyMw=",
  ],
  [
    "\u00ad",
    "SCRAM-SHA-256$4096:hJFOA44LgJt67ZbOq2iQ8A==$73MkNYS+m4Fm9c/Chf9jZF6kyL249c6bKTmISErXsx4=:I/N2Dcj2idwu794Inh6iX7YwQIF5sauefj8HGXH4LdY=",
  ],
  [
    "\uff21\u200bb",
    "SCRAM-SHA-256$4096:Piu9VJUedNrlGAq6LYR2UQ==$73qTapisHLOTU2ydQXLby4mzK3R4LAB9TXwEVc/7EeM=:EXFmTn4inEdzqhAi3JY7Fo/UUhHHPzoHjUNX4diGtVU=",
  ],
  [
    "\ufefc\u00aa",
    "SCRAM-SHA-256$4096:KwnrTGUkZhT9Q8bimPioFQ==$EluL1e75n0RLeOqO1KIPrT8rbJ6pKkLR0ZWiS87VHmM=:Rhq5g8LQvREBOm2IegP9GLgSY3V3r8EcWtqlpwQloY0=",
  ],
  [
    "\u0007\u00aa",
    "SCRAM-SHA-256$4096:Alhp+onCCZtrhMsiNJ775Q==$ohmOAozm5qSgB1sotSy0FUzb+uXhjRChJY0OpG9PVds=:XSI5lw884cLoHzrYt4bLoF1Y7d4Fn8SfKndFeAOPUFk=",
  ],
  [
    "\u2121\u05d0",
    "SCRAM-SHA-256$4096:Tm3qIOzzjjfdoTrK/MfqzA==$CAVdDt5AZyofdtmfy6IRsn/W+nINQG17ZkFsY5dmUeE=:eMoVhUnHI3qNG5fCzBrAbdoTfNTtjZy8VmPK95Kp+Bw=",
  ],
  [
    "e\u0301\u{1f60}0",
    "SCRAM-SHA-256$4096:xOZyH0wObLuU9S5TaplOhw==$IYHUZ6kSbazLsVGKBKvJ8hugeyfJSWQr62ctyWzkWOw=:NMLc3Yyx8gqJ6UlvJzBCpue7rq3IZOXJPsoDPevteMk=",
  ],
  [
    "\ufffc\ufb01",
    "SCRAM-SHA-256$4096:gcfBKVDWRd7Z3vm45yWCHA==$mE4kB954fL+gxwklMDCSA3GESYZYUX2oh96A92n/Ggw=:ORmYg3RZKyrtuxzqgQC4xArfDWWC1Rwu/Jzxo6+lX8c=",
  ],
  [
    "\u05d0\uff21",
    "SCRAM-SHA-256$4096:IHNNXuNzAxqWJUoLniLwvg==$wu0Fli8ZYJYbUggtC2oUf7nlq2zrM7m6KoCbGK4nEv8=:Jlc4Vk0MtIE40F0F5zG0euuTqPoFnznVFGo/bJ9cqdw=",
  ],
  [
    "\u05d0\u2460\u05d0",
    "SCRAM-SHA-256$4096:1ztI3keZoDDhAN+szcs7fg==$+iq5JK0iYfjxF53iw9GMTZjXa/5LFPGObpXjVeluq+c=:wyO/F5h2qlcI06a3mFw6AGvd76oS6S+p3ZaHeTb9/e0=",
  ],
  [
    "a\u037a",
    "SCRAM-SHA-256$4096:bLi6gZbkJsSxHvFhiX+ExQ==$skq/LRtPsit3qO8Un9hDFH7MNP+YjZFLLzJJHmkceGM=:gMn6UnBuJ6aUUnHXlBrwU48/XBQQxpnvUC8JFC7E89o=",
  ],
  [
    "\u{1d15}E\ufb2a",
    "SCRAM-SHA-256$4096:2CCAy1C7zQjDe/EnGN5Qng==$l2oxozyvOanXB9sqxC56elR2XfVxaDtUuEKb8aqM0is=:CP410hSR+2TaEnO/r7vOU/UGtXl5Fh5sNIJ+fDyelII=",
  ],
  [
    "\u{2f800}\u{113}\u{62b}\u{2a3e2}",
    "SCRAM-SHA-256$4096:SInZGa6w5LlyRf10TPAkKQ==$zJZk+p64gd678lL+rdC8N8rcA9LuI8toOqcoje72HdI=:mYzhhPEMS9uOfnxrFZC8WkM85g7Fm/IiyWfWX1UbVIA=",
  ],
  [
    "\u{2f800}\u{1d15e}\u{15d02}\u{ad}",
    "SCRAM-SHA-256$4096:K/dVr+/8t77/wat2/JLoqw==$y5W47P9sM8jXoWcNziTIdzo13mp5al23r8vZzQqjQTw=:VHa995q0WpvSjKJtEswmuK+/gIKttoM10XlbVEEYnE8=",
  ],
  [
    "\u{41}\u{2f800}\u{fb2a}\u{1e9b}",
    "SCRAM-SHA-256$4096:vRewFrKcjtuBS4oamljMGg==$tucNeDtoNBYU5U03hcDUirOf5HccLahwb8XxTelqHq4=:oWCAzh1EVRmv+hmVfrGIIuiwL7E5oy37Ld/LKKmrc2Q=",
  ],
  [
    "\u{fb01}\u{1f600}",
    "SCRAM-SHA-256$4096:zduI8tXSV150PrDRyQm2KA==$bCYvVlyo3vjPDo7ID/qbMBL6MOVavgHY27TxiRVMkcc=:GLXgWv4L4CmPjKcOc6VwL0c84hcFXYj+gFhwr5gOYjo=",
  ],
  [
    "\u{200b}\u{31}\u{338}",
    "SCRAM-SHA-256$4096:hama0k52I9IAeabDzlhydA==$saaRJxy21NCNOHvloYmlIwFX/PT7ZeqDpeR+lyWIQ0U=:2LcjvOxxLQgO8qdt/4j6ZBRnY3zabHhKItyddrCLX0k=",
  ],
];

function parsed(text: string): ScramVerifier {
  const verifier = parseScramVerifier(text);
  if (verifier === undefined) throw new Error("is no verifier");
  return verifier;
}

const pencil = fromPostgres[0]?.[1] ?? "";
const [head = "", storedKey = "", serverKey = ""] = pencil.split(/(?<=\$.*)[$:](?=[^$:]{44})/);

describe("SCRAM verifiers", () => {
  test.each(fromPostgres)("of the password %j is what PostgreSQL makes of it", (password, text) => {
    const { salt, iterations } = parsed(text);
    expect(formatScramVerifier(createScramVerifierSync(password, { salt, iterations }))).toBe(text);
  });

  test("are the same computed off the thread", async () => {
    const options = { salt: Buffer.from("0123456789abcdef"), iterations: 4097 };
    const verifier = await createScramVerifier("gehe\u00adim", options);
    expect(verifier).toEqual(createScramVerifierSync("geheim", options));
    expect(verifier.kind).toBe("stored");
  });

  test("keep their parts through format and parse", () => {
    const verifier = parsed(pencil);
    expect(verifier).toMatchObject({ kind: "stored", iterations: 4096 });
    expect([verifier.salt.length, verifier.storedKey.length, verifier.serverKey.length]).toEqual([
      16, 32, 32,
    ]);
    expect(formatScramVerifier(verifier)).toBe(pencil);
  });

  test("come with any iteration count that an int holds", () => {
    const text = (iterations: string) => `SCRAM-SHA-256$${iterations}:QUJD$${storedKey}:${serverKey}`;
    expect(parsed(text("1")).iterations).toBe(1);
    expect(parsed(text("2147483647")).iterations).toBe(2147483647);
    for (const iterations of ["0", "-1", "+1", " 1", "01", "1.5", "1e3", "", "2147483648", "99999999999"]) {
      expect([iterations, parseScramVerifier(text(iterations))]).toEqual([iterations, undefined]);
    }
  });

  test.each([
    ["the empty text", ""],
    ["a password", "SCRAM-SHA-256"],
    ["another mechanism", pencil.replace("256", "512")],
    ["another case", pencil.toLowerCase()],
    ["a line before", `\n${pencil}`],
    ["a line behind", `${pencil}\n`],
    ["an MD5 hash", "md55a231fcdb710d73268c4f44283487ba2"],
    ["no salt", `SCRAM-SHA-256$4096:$${storedKey}:${serverKey}`],
    ["a salt that is no base64", `SCRAM-SHA-256$4096:QUJ$${storedKey}:${serverKey}`],
    ["white space in the salt", `SCRAM-SHA-256$4096:QU JD$${storedKey}:${serverKey}`],
    [
      "bits behind the end of the salt",
      `SCRAM-SHA-256$4096:QUK=$${storedKey}:${serverKey}`.replace("QUK=", "QUL="),
    ],
    ["base64url", `${head}$${storedKey.replace(/.$/, "").replace(/^./, "-")}=:${serverKey}`],
    ["a short stored key", `${head}$QUJD:${serverKey}`],
    ["a short server key", `${head}$${storedKey}:QUJD`],
    ["no server key", `${head}$${storedKey}`],
    ["a part too many", `${pencil}:QUJD`],
  ])("are not to be seen in %s", (_, text) => {
    expect(parseScramVerifier(text)).toBeUndefined();
  });

  test("the parts that these tests are built from make a verifier", () => {
    expect(parseScramVerifier(`${head}$${storedKey}:${serverKey}`)).toEqual(parsed(pencil));
  });
});

describe("mock verifiers", () => {
  const secret = Buffer.alloc(32, 1);

  test("have a salt of the usual size that is stable for a name", () => {
    const mock = createMockVerifier(secret, "nobody", 4096);
    expect(mock).toEqual(createMockVerifier(secret, "nobody", 4096));
    expect([mock.kind, mock.iterations, mock.salt.length]).toEqual(["mock", 4096, 16]);
  });

  test("differ between names and between secrets", () => {
    const salts = [
      createMockVerifier(secret, "nobody", 4096),
      createMockVerifier(secret, "nobodz", 4096),
      createMockVerifier(Buffer.alloc(32, 2), "nobody", 4096),
    ].map((mock) => mock.salt.toString("hex"));
    expect(new Set(salts).size).toBe(3);
  });

  test("do not show their keys in the salt", () => {
    const mock = createMockVerifier(secret, "nobody", 4096);
    expect(mock.storedKey.equals(mock.serverKey)).toBe(false);
    expect(mock.storedKey.subarray(0, 16).equals(mock.salt)).toBe(false);
  });
});
