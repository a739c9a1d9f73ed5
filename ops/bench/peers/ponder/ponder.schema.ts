import { onchainTable, primaryKey } from "ponder";

// What each holder received less what it sent.
export const balance = onchainTable(
  "balance",
  (t) => ({
    token: t.hex().notNull(),
    holder: t.hex().notNull(),
    amount: t.bigint().notNull(),
  }),
  (table) => ({ key: primaryKey({ columns: [table.token, table.holder] }) }),
);

// What was minted less what was burnt.
export const total = onchainTable("total", (t) => ({
  token: t.hex().primaryKey(),
  amount: t.bigint().notNull(),
}));
