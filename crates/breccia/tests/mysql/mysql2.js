// mysql2 as programs use it: text and binary protocol, pools, streams. Prints what it sees; nothing
// printed differs from run to run, as in dbapi.py.
const mysql = require("mysql2/promise");
const { createHash } = require("crypto");
const [port, database] = [Number(process.argv[2]), process.argv[3]];
const options = { host: "127.0.0.1", port, user: "breccia", password: "secret", database, charset: "utf8mb4" };
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
  const c = await mysql.createConnection({ ...options, multipleStatements: true, supportBigNumbers: true });
  await c.query("drop table if exists n");
  await c.query("create table n (id int auto_increment primary key, v varchar(100), b longblob, d datetime(3), f double, j json, k decimal(10,2), g bigint unsigned) default charset utf8mb4");
  for (let i = 0; i < 20; i++) {
    const [sent] = await c.execute("insert into n (v, f, d, k, g) values (?, ?, ?, ?, ?)", [`v${i}☃`, i / 4, "2024-02-29 01:02:03.5", "12.50", "18446744073709551615"]);
    const [got] = await c.execute("select id, v, f, d, k, g, b from n where id = ?", [sent.insertId]);
    show("row", [sent.insertId, sent.affectedRows, got]);
  }
  const [text] = await c.query("select id, v, f, k from n where id in (?)", [[1, 2, 3]]);
  show("text", text);
  const [all] = await c.query("select 1 as a; update n set v = 'x' where id < 3; select 'two' as b");
  show("multi", all.map((it) => (Array.isArray(it) ? it : [it.affectedRows, it.info])));
  await c.query("drop procedure if exists np");
  await c.query("create procedure np(a int) begin select a; select a * 2; end");
  const [called] = await c.query("call np(21)");
  show("call", called.map((it) => (Array.isArray(it) ? it : it.affectedRows)));
  const [bound] = await c.execute("call np(?)", [22]);
  show("call", bound.map((it) => (Array.isArray(it) ? it : it.affectedRows)));
  await c.beginTransaction();
  await c.execute("insert into n (v) values ('gone')");
  await c.rollback();
  await c.query("set transaction isolation level read committed");
  await c.beginTransaction();
  await c.execute("insert into n (v) values ('kept')");
  await c.commit();
  show("kept", (await c.execute("select v from n where v in ('gone', 'kept')"))[0]);
  for (const size of [(16 << 20) - 1, 16 << 20, 64 << 20]) {
    const value = Buffer.alloc(size, "abcdefg");
    const [sent] = await c.execute("insert into n (b) values (?)", [value]);
    show("big", (await c.execute("select length(b) l, b from n where id = ?", [sent.insertId]))[0]);
    show("big text", (await c.query("select b from n where id = ?", [sent.insertId]))[0]);
  }
  await fails("table", c.execute("select * from nothing_like_it"));
  await fails("duplicate", c.execute("insert into n (id) values (1)"));
  await fails("syntax", c.query("selec 1"));
  await c.changeUser({ user: "breccia", password: "secret", database });
  show("changed", (await c.query("select current_user() u"))[0]);
  await c.ping();
  await c.end();
  const pool = mysql.createPool({ ...options, connectionLimit: 6 });
  const done = await Promise.all([...Array(60).keys()].map(async (i) => {
    // A session sees what it wrote; a pool is several of them.
    const one = await pool.getConnection();
    const [sent] = await one.execute("insert into n (v) values (?)", [`p${i}`]);
    const [got] = await one.execute("select v from n where id = ?", [sent.insertId]);
    one.release();
    return got[0].v === `p${i}`;
  }));
  show("pool", done.every((it) => it));
  const streaming = await pool.getConnection();
  let total = 0;
  await new Promise((resolve, reject) => {
    const rows = streaming.connection.query("select seq from seq_1_to_20000").stream();
    rows.on("data", (row) => (total += Number(row.seq))).on("end", resolve).on("error", reject);
  });
  streaming.release();
  show("streamed", total);
  await pool.end();
  console.log("all good");
})().catch((e) => { console.log(e); process.exit(1); });
