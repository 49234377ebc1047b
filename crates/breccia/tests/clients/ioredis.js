// ioredis, unchanged: strings, pipelines, transactions, streams of keys, publish and subscribe.
//
// Argument: port. Ends with status 0 when all held.
"use strict";

const assert = require("node:assert");
const { Redis } = require("ioredis");

async function values(client) {
  assert.strictEqual(await client.set("io:a", "1"), "OK");
  assert.strictEqual(await client.get("io:a"), "1");
  assert.strictEqual(await client.set("io:a", "2", "NX"), null);
  await client.mset(Object.fromEntries([...Array(50).keys()].map((i) => [`io:m${i}`, String(i)])));
  const keys = [...Array(50).keys()].map((i) => `io:m${i}`);
  assert.deepStrictEqual(await client.mget(keys), keys.map((_, i) => String(i)));
  assert.strictEqual(await client.exists(...keys, "io:none"), 50);
  assert.strictEqual(await client.hset("io:h", { f: "v", g: "w" }), 2);
  assert.deepStrictEqual(await client.hgetall("io:h"), { f: "v", g: "w" });
  assert.strictEqual(await client.rpush("io:l", "a", "b"), 2);
  const binary = Buffer.from([...Array(256).keys()]);
  await client.set(binary, binary);
  assert.deepStrictEqual(await client.getBuffer(binary), binary);
  assert.strictEqual(await client.del(keys), 50);
}

async function pipelines(client) {
  const pipeline = client.pipeline();
  for (let i = 0; i < 300; i++) pipeline.set(`io:p${i}`, i).get(`io:p${i}`);
  const answers = await pipeline.exec();
  for (let i = 0; i < 300; i++) assert.deepStrictEqual(answers[2 * i + 1], [null, String(i)]);
  const transaction = await client.multi().incrby("io:tx", 5).expire("io:tx", 60).exec();
  assert.deepStrictEqual(transaction, [[null, 5], [null, 1]]);
  client.defineCommand("addto", {
    numberOfKeys: 1,
    lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
  });
  assert.strictEqual(await client.addto("io:script", 7), 7);
  assert.strictEqual(await client.addto("io:script2", 7), 7);
}

async function conflicts(client, port) {
  const other = new Redis(port);
  await client.watch("io:w");
  await other.set("io:w", "theirs");
  assert.strictEqual(await client.multi().set("io:w", "mine").exec(), null);
  await client.watch("io:w");
  assert.deepStrictEqual(await client.multi().append("io:w", "!").exec(), [[null, 7]]);
  await assert.rejects(client.multi().set("io:w").exec(), /EXECABORT|wrong number/);
  const waiting = client.blpop("io:queue", 10);
  await other.rpush("io:queue", "job");
  assert.deepStrictEqual(await waiting, ["io:queue", "job"]);
  await assert.rejects(client.lpush("io:w", "x"), /WRONGTYPE/);
  other.disconnect();
}

async function automatic(port) {
  const client = new Redis(port, { enableAutoPipelining: true, keyPrefix: "io:auto:" });
  await Promise.all([...Array(200).keys()].map((i) => client.set(`k${i}`, i)));
  const values = await Promise.all([...Array(200).keys()].map((i) => client.get(`k${i}`)));
  assert.deepStrictEqual(values, [...Array(200).keys()].map(String));
  await client.xadd("s", "1-1", "f", "v");
  const entries = await client.xread("STREAMS", "s", 0);
  assert.deepStrictEqual(entries, [["io:auto:s", [["1-1", ["f", "v"]]]]]);
  client.disconnect();
}

async function scans(client) {
  const found = new Set();
  for await (const keys of client.scanStream({ match: "io:p*", count: 10 })) {
    keys.forEach((key) => found.add(key));
  }
  assert.strictEqual(found.size, 300);
  const fields = Object.fromEntries([...Array(300).keys()].map((i) => [`f${i}`, String(i)]));
  await client.hset("io:many", fields);
  const got = new Set();
  for await (const pairs of client.hscanStream("io:many", { count: 20 })) {
    pairs.filter((_, i) => i % 2 === 0).forEach((field) => got.add(field));
  }
  assert.strictEqual(got.size, 300);
}

async function pubsub(client, port) {
  const subscriber = new Redis(port);
  const heard = new Promise((resolve) => subscriber.on("message", (...all) => resolve(all)));
  assert.strictEqual(await subscriber.subscribe("io:news"), 1);
  await client.publish("io:news", "hello");
  assert.deepStrictEqual(await heard, ["io:news", "hello"]);
  const matched = new Promise((resolve) => subscriber.on("pmessage", (...all) => resolve(all)));
  assert.strictEqual(await subscriber.psubscribe("io:p?t"), 2);
  await client.publish("io:pat", "again");
  assert.deepStrictEqual(await matched, ["io:p?t", "io:pat", "again"]);
  assert.strictEqual(await subscriber.unsubscribe("io:news"), 1);
  subscriber.disconnect();
}

async function main(port) {
  const client = new Redis(port, { connectionName: "io" });
  await client.flushall();
  await values(client);
  await pipelines(client);
  await conflicts(client, port);
  await automatic(port);
  await scans(client);
  await pubsub(client, port);
  await client.quit();
  console.log("ioredis: good");
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});
