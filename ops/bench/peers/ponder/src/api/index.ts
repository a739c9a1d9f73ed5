import { createHash } from "node:crypto";
import { and, asc, eq, gt, ne, or } from "ponder";
import { db } from "ponder:api";
import { balance, total } from "ponder:schema";
import { Hono } from "hono";

const app = new Hono();

// Rows of one query: PGlite takes minutes over an answer of all of them.
const PAGE_ROWS = 10_000;

// What was computed, in the words of the benchmark: how many values are not zero, and the
// SHA-256 of all of them as modules/token-ledger keeps them, in the order of their keys.
app.get("/answer", async (context) => {
  const sha256 = createHash("sha256");
  let count = 0;
  const add = (key: string, amount: bigint) => {
    sha256.update(key + BigInt.asUintN(256, amount).toString(16).padStart(64, "0"), "hex");
    count += 1;
  };
  let last = { token: "0x", holder: "0x" } as { token: `0x${string}`; holder: `0x${string}` };
  for (;;) {
    const rows = await db
      .select()
      .from(balance)
      .where(
        or(
          gt(balance.token, last.token),
          and(eq(balance.token, last.token), gt(balance.holder, last.holder)),
        ),
      )
      .orderBy(asc(balance.token), asc(balance.holder))
      .limit(PAGE_ROWS);
    for (const { token, holder, amount } of rows) {
      if (amount !== 0n) add("62" + token.slice(2) + holder.slice(2), amount);
    }
    if (rows.length < PAGE_ROWS) break;
    last = rows[rows.length - 1]!;
  }
  const totals = await db.select().from(total).where(ne(total.amount, 0n)).orderBy(asc(total.token));
  for (const { token, amount } of totals) add("74" + token.slice(2), amount);
  return context.text(`${count} ${sha256.digest("hex")}`);
});

export default app;
