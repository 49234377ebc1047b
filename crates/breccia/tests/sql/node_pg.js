// node-postgres as programs use it: parameters, named statements, transactions, pools, notifications.
"use strict";
const assert = require("node:assert");
const { Client, Pool } = require("pg");

const place = {
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  user: "breccia",
  password: "secret",
  database: process.argv[3],
};

async function main() {
  const c = new Client(place);
  await c.connect();
  await c.query("create table if not exists x (id serial primary key, v text)");
  for (let i = 0; i < 30; i++) {
    const made = await c.query("insert into x (v) values ($1) returning id", [`n${i}`]);
    const found = await c.query("select v from x where id = $1", [made.rows[0].id]);
    assert.strictEqual(found.rows[0].v, `n${i}`);
  }
  for (let i = 0; i < 30; i++) {
    const found = await c.query({ name: "named", text: "select $1::int as n", values: [i] });
    assert.strictEqual(found.rows[0].n, i);
  }
  await c.query("begin");
  await c.query("insert into x (v) values ('gone')");
  await assert.rejects(c.query("select 1/0"), { code: "22012" });
  await c.query("rollback");
  assert.strictEqual((await c.query("select 1 from x where v = 'gone'")).rowCount, 0);
  const two = await c.query("select 1 as a; select 2 as b");
  assert.deepStrictEqual([two[0].rows[0].a, two[1].rows[0].b], [1, 2]);

  const heard = new Promise((resolve) => c.once("notification", (m) => resolve(m.payload)));
  await c.query("listen ch");
  await c.query("select pg_notify('ch', 'hi')");
  assert.strictEqual(await heard, "hi");
  await c.end();

  const pool = new Pool({ ...place, max: 20 });
  await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      const found = await pool.query("select $1::int as n", [i]);
      assert.strictEqual(found.rows[0].n, i);
    }),
  );
  await pool.end();

  const quick = new Client({ ...place, statement_timeout: 200 });
  await quick.connect();
  await assert.rejects(quick.query("select pg_sleep(5)"), { code: "57014" });
  await quick.end();
  console.log("all good");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
