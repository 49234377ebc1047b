// ioredis, unchanged: strings, pipelines, transactions, streams of keys, publish and subscribe.
//
// Arguments: port, and `tagged` where hash tags bring keys together. Ends with status 0 when all held.
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

// A group of two consumers; one waits for what comes.
async function streams(client, port) {
  await client.xgroup("CREATE", "io:stream", "g", "$", "MKSTREAM");
  const waiting = new Redis(port);
  const read = waiting.xreadgroup("GROUP", "g", "me", "BLOCK", 10000, "STREAMS", "io:stream", ">");
  const id = await client.xadd("io:stream", "*", "n", "1");
  assert.deepStrictEqual(await read, [["io:stream", [[id, ["n", "1"]]]]]);
  assert.strictEqual((await client.xpending("io:stream", "g"))[0], 1);
  const claimed = await client.xautoclaim("io:stream", "g", "you", 0, "0-0");
  assert.deepStrictEqual(claimed[1], [[id, ["n", "1"]]]);
  assert.strictEqual(await client.xack("io:stream", "g", id), 1);
  const pipeline = client.pipeline();
  for (let i = 1; i <= 50; i++) pipeline.xadd("io:long", `${i}-0`, "n", i);
  assert.ok((await pipeline.exec()).every(([error]) => error === null));
  assert.strictEqual((await client.xrange("io:long", "10-0", "19-0")).length, 10);
  assert.strictEqual(await client.xread("BLOCK", 20, "STREAMS", "io:long", "$"), null);
  waiting.disconnect();
}

// What a hash tag brings together may be asked for at once.
async function tags(client) {
  client.defineCommand("swap", {
    numberOfKeys: 2,
    lua: `local one, two = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
          redis.call('MSET', KEYS[1], two, KEYS[2], one)
          return {two, one}`,
  });
  await client.mset("{io}a", "1", "{io}b", "2");
  assert.deepStrictEqual(await client.swap("{io}a", "{io}b"), ["2", "1"]);
  const answers = await client.multi().get("{io}a").get("{io}b").rename("{io}a", "{io}c").exec();
  assert.deepStrictEqual(answers, [[null, "2"], [null, "1"], [null, "OK"]]);
  await client.rpush("{io}from", "x");
  assert.strictEqual(await client.blmove("{io}from", "{io}to", "LEFT", "RIGHT", 1), "x");
  assert.deepStrictEqual(await client.brpop("{io}none", "{io}to", 1), ["{io}to", "x"]);
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

async function main(port, tagged) {
  const client = new Redis(port, { connectionName: "io" });
  await client.flushall();
  await values(client);
  await pipelines(client);
  await conflicts(client, port);
  await automatic(port);
  await streams(client, port);
  if (tagged) await tags(client);
  await scans(client);
  await pubsub(client, port);
  await client.quit();
  console.log("ioredis: good");
}

main(Number(process.argv[2]), process.argv[3] === "tagged").catch((error) => {
  console.error(error);
  process.exit(1);
});
