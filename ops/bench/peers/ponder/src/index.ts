import { ponder } from "ponder:registry";
import { balance, total } from "ponder:schema";
import { zeroAddress, type Hex } from "viem";

// The job of modules/token-ledger: the zero address mints and burns, all others hold.
ponder.on("Token:Transfer", async ({ event, context }) => {
  const token = event.log.address;
  const { from, to, value } = event.args;
  await add(context, token, from, -value);
  await add(context, token, to, value);
});

async function add(context: any, token: Hex, holder: Hex, change: bigint) {
  if (holder === zeroAddress) {
    await context.db
      .insert(total)
      .values({ token, amount: -change })
      .onConflictDoUpdate((row: { amount: bigint }) => ({ amount: row.amount - change }));
  } else {
    await context.db
      .insert(balance)
      .values({ token, holder, amount: change })
      .onConflictDoUpdate((row: { amount: bigint }) => ({ amount: row.amount + change }));
  }
}
