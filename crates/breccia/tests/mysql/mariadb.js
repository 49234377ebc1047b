// MariaDB's own connector for Node as programs use it: pipelining, batches, pools, streams. Prints what
// it sees; nothing printed differs from run to run, as in dbapi.py.
const mariadb = require("mariadb");
const { createHash } = require("crypto");
const [port, database] = [Number(process.argv[2]), process.argv[3]];
const options = { host: "127.0.0.1", port, user: "breccia", password: "secret", database, connectTimeout: 10000 };
const short = (key, value) => {
  if (value && value.type === "Buffer") value = Buffer.from(value.data);
  if (Buffer.isBuffer(value)) return value.length > 60 ? `${value.length} ${createHash("sha256").update(value).digest("hex").slice(0, 16)}` : value.toString("hex");
  return typeof value === "bigint" ? `${value}n` : value;
};
const show = (what, value) => console.log(what, JSON.stringify(value, short));
const fails = async (what, promise) => {
  try { await promise; show(what, "no error"); } catch (e) { show(what, [e.code, e.errno, e.sqlState, e.sqlMessage]); }
};

(async () => {
  const c = await mariadb.createConnection({ ...options, multipleStatements: true, maxAllowedPacket: 256 << 20 });
  await c.query("drop table if exists m");
  await c.query("create table m (id int auto_increment primary key, v varchar(100), b longblob, d datetime(3), f double, k decimal(10,2), g bigint unsigned) default charset utf8mb4");
  for (let i = 0; i < 20; i++) {
    const sent = await c.execute("insert into m (v, f, d, k, g) values (?, ?, ?, ?, ?)", [`v${i}☃`, i / 4, "2024-02-29 01:02:03.5", "12.50", 18446744073709551615n]);
    const got = await c.execute("select id, v, f, d, k, g, b from m where id = ?", [sent.insertId]);
    show("row", [sent.insertId, sent.affectedRows, got]);
  }
  // Sent without waiting for answers.
  const piped = await Promise.all([...Array(50).keys()].map((i) => c.query("insert into m (v) values (?)", [`q${i}`]).then((it) => it.affectedRows)));
  show("pipelined", piped.reduce((a, b) => a + b));
  const mixed = await Promise.all([c.query("insert into m (v) values ('w')"), c.query("select count(*) n from m where v = 'w'"), c.execute("select count(*) n from m where v = ?", ["w"])]);
  show("mixed", [mixed[0].affectedRows, mixed[1], mixed[2]]);
  const batch = await c.batch("insert into m (v, f) values (?, ?)", [...Array(30).keys()].map((i) => [`b${i}`, i]));
  // One result, or one for each row where the server is not asked for its own way of batches.
  show("batch", batch.affectedRows ?? batch.reduce((sum, it) => sum + it.affectedRows, 0));
  show("multi", await c.query("select 1 as a; select 'two' as b"));
  await c.query("drop procedure if exists mp");
  await c.query("create procedure mp(a int) begin select a; select a * 2; end");
  const called = await c.query("call mp(21)");
  show("call", called.map((it) => (Array.isArray(it) ? it : it.affectedRows)));
  await c.beginTransaction();
  await c.query("insert into m (v) values ('gone')");
  await c.rollback();
  await c.beginTransaction();
  await c.query("insert into m (v) values ('kept')");
  await c.commit();
  show("kept", await c.query("select v from m where v in ('gone', 'kept')"));
  for (const size of [(16 << 20) - 1, 16 << 20]) {
    const value = Buffer.alloc(size, "abcdefg");
    const sent = await c.execute("insert into m (b) values (?)", [value]);
    show("big", await c.execute("select length(b) l, b from m where id = ?", [sent.insertId]));
    show("big text", await c.query("select b from m where id = ?", [sent.insertId]));
  }
  await fails("table", c.execute("select * from nothing_like_it"));
  await fails("duplicate", c.query("insert into m (id) values (1)"));
  await c.reset();
  show("reset", await c.query("select @@autocommit a"));
  await c.changeUser({ user: "breccia", password: "secret", database });
  show("changed", await c.query("select current_user() u"));
  await c.ping();
  await c.end();
  const pool = mariadb.createPool({ ...options, connectionLimit: 6 });
  const done = await Promise.all([...Array(60).keys()].map(async (i) => {
    // A session sees what it wrote; a pool is several of them.
    const one = await pool.getConnection();
    const sent = await one.query("insert into m (v) values (?)", [`p${i}`]);
    const got = await one.query("select v from m where id = ?", [sent.insertId]);
    await one.release();
    return got[0].v === `p${i}`;
  }));
  show("pool", done.every((it) => it));
  const streaming = await pool.getConnection();
  let total = 0;
  for await (const row of streaming.queryStream("select seq from seq_1_to_20000")) total += Number(row.seq);
  show("streamed", total);
  await streaming.release();
  await pool.end();
  console.log("all good");
})().catch((e) => { console.log(e); process.exit(1); });
