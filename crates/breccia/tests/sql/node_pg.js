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

async function others() {
  const c = new Client({ ...place, application_name: "zork", options: "-c work_mem=6MB" });
  const other = new Client(place);
  await c.connect();
  await other.connect();
  const value = async (client, text, ...values) => {
    const found = await client.query({ text, values, rowMode: "array" });
    return found.rows[0][0];
  };
  for (let i = 0; i < 5; i++) {
    assert.strictEqual(await value(c, "show work_mem"), "6MB");
    assert.strictEqual(await value(other, "show work_mem"), "4MB");
    assert.strictEqual(await value(c, "select current_setting('application_name')"), "zork");
  }
  // Savepoints.
  await c.query("begin");
  for (let i = 0; i < 5; i++) {
    await c.query("savepoint s");
    await c.query("insert into x (v) values ('undone')");
    await assert.rejects(c.query("select 1 / $1::int", [0]), { code: "22012" });
    await assert.rejects(c.query("select 1"), { code: "25P02" });
    await c.query("rollback to s");
  }
  await c.query("commit");
  assert.strictEqual(await value(c, "select count(*)::int from x where v = 'undone'"), 0);
  // Kinds of values, and a large one.
  await c.query("create temp table kinds (i int, b bytea, j jsonb, a int[], s text[])");
  const insert = "insert into kinds values ($1, $2, $3, $4, $5)";
  const bytes = Buffer.from([0, 1, 255, 92, 39]);
  for (let i = 0; i < 10; i++) {
    const name = i % 2 ? "kinds" : undefined;
    await c.query({ name, text: insert, values: [i, bytes, { a: [1, null] }, [i, null], ["a,b", '"']] });
  }
  await c.query(insert, [null, null, null, null, null]);
  const row = (await c.query("select * from kinds where i = 7")).rows[0];
  assert.deepStrictEqual(row, { i: 7, b: bytes, j: { a: [1, null] }, a: [7, null], s: ["a,b", '"'] });
  const none = (await c.query("select * from kinds where i is null")).rows[0];
  assert.deepStrictEqual(Object.values(none), [null, null, null, null, null]);
  const large = require("node:crypto").randomBytes(20 << 20);
  assert.ok(large.equals(await value(c, "select $1::bytea", large)));
  // Asked all at once, answered in order.
  const asked = Array.from({ length: 100 }, (_, i) => value(c, "select $1::int", i));
  assert.deepStrictEqual(await Promise.all(asked), Array.from({ length: 100 }, (_, i) => i));
  await assert.rejects(other.query("select * from kinds"), { code: "42P01" });
  assert.ok(await value(c, "select pg_try_advisory_lock(81)"));
  assert.ok(!(await value(other, "select pg_try_advisory_lock(81)")));
  const told = new Promise((resolve) => c.once("notice", (n) => resolve(n.message)));
  await c.query("do $$ begin raise notice 'look here'; end $$");
  assert.strictEqual(await told, "look here");
  // A cancel, as the driver's own message has it.
  const slow = other.query("select pg_sleep(10)");
  setTimeout(() => c.query("select pg_cancel_backend(pid) from pg_stat_activity where query = " +
    "'select pg_sleep(10)' and datname = current_database()"), 300);
  await assert.rejects(slow, { code: "57014" });
  // Ends: by its server, and in the middle.
  other.on("error", () => {});
  await assert.rejects(other.query("select pg_terminate_backend(pg_backend_pid())"));
  for (let i = 0; i < 10; i++) {
    const left = new Client(place);
    left.on("error", () => {});
    await left.connect();
    await left.query("begin; insert into x (v) values ('left')");
    left.query("select pg_sleep(1)").catch(() => {});
    if (i % 2) await new Promise((resolve) => setTimeout(resolve, 20));
    left.connection.stream.destroy();
  }
  assert.strictEqual(await value(c, "select count(*)::int from x where v = 'left'"), 0);
  await c.end();
}

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

  await others();
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
