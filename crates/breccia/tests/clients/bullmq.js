// BullMQ, unchanged but for a prefix with a hash tag: `{bull}`.
//
// Argument: port. Ends with status 0 when all held.
"use strict";

const assert = require("node:assert");
const { FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } = require("bullmq");
const { Redis } = require("ioredis");

const prefix = "{bull}";
const LIMIT_MS = 30000;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// One queue with its worker and its events; all are closed at the end.
async function rig(port, name, process, options = {}) {
  const connection = { host: "127.0.0.1", port, maxRetriesPerRequest: null };
  const all = { connection, prefix };
  const queue = new Queue(name, all);
  queue.setMaxListeners(0);
  // From the beginning: what happened before its first read counts too.
  const events = new QueueEvents(name, { ...all, lastEventId: "0-0" });
  events.setMaxListeners(0);
  const worker = new Worker(name, process, { ...all, ...options });
  await Promise.all([queue.waitUntilReady(), events.waitUntilReady(), worker.waitUntilReady()]);
  const close = async () => {
    await worker.close();
    await events.close();
    await queue.close();
  };
  return { all, queue, events, worker, close };
}

async function jobs(port) {
  const seen = [];
  const { queue, events, close } = await rig(port, "jobs", async (job) => {
    seen.push(job.name);
    await job.updateProgress(50);
    await job.log("half");
    if (job.name === "fails") throw new UnrecoverableError("as wanted");
    if (job.name === "third" && job.attemptsMade < 2) throw new Error("not yet");
    return job.data.n * 2;
  });
  const progress = new Promise((resolve) => events.once("progress", ({ data }) => resolve(data)));
  const job = await queue.add("plain", { n: 21 });
  assert.strictEqual(await job.waitUntilFinished(events, LIMIT_MS), 42);
  assert.strictEqual(await progress, 50);
  assert.deepStrictEqual((await queue.getJobLogs(job.id)).logs, ["half"]);
  assert.strictEqual(await job.getState(), "completed");

  const many = await queue.addBulk([...Array(100).keys()].map((n) => ({ name: "bulk", data: { n } })));
  const results = await Promise.all(many.map((one) => one.waitUntilFinished(events, LIMIT_MS)));
  assert.deepStrictEqual(results, [...Array(100).keys()].map((n) => n * 2));

  const failing = await queue.add("fails", { n: 1 });
  await assert.rejects(failing.waitUntilFinished(events, LIMIT_MS), /as wanted/);
  assert.strictEqual((await queue.getFailed()).length, 1);
  const third = await queue.add("third", { n: 3 }, { attempts: 3, backoff: { type: "fixed", delay: 50 } });
  assert.strictEqual(await third.waitUntilFinished(events, LIMIT_MS), 6);

  const begun = Date.now();
  const late = await queue.add("late", { n: 4 }, { delay: 400 });
  assert.strictEqual(await late.getState(), "delayed");
  assert.strictEqual(await late.waitUntilFinished(events, LIMIT_MS), 8);
  assert.ok(Date.now() - begun >= 390, `${Date.now() - begun} ms`);

  const once = await queue.add("once", { n: 1 }, { jobId: "only-one" });
  const twice = await queue.add("once", { n: 2 }, { jobId: "only-one" });
  assert.strictEqual(once.id, twice.id);
  await once.waitUntilFinished(events, LIMIT_MS);
  assert.strictEqual(seen.filter((name) => name === "once").length, 1);
  await close();
}

async function pausing(port) {
  const order = [];
  const { queue, events, close } = await rig(port, "pausing", async (job) => {
    order.push(job.name);
  });
  await queue.pause();
  assert.strictEqual(await queue.isPaused(), true);
  await queue.add("second", {}, { priority: 5 });
  await queue.add("third", {}, { priority: 9 });
  const last = await queue.add("last", {}, { priority: 20 });
  await queue.add("first", {});
  assert.strictEqual(await queue.getWaitingCount() + await queue.getPrioritizedCount(), 4);
  await wait(200);
  assert.deepStrictEqual(order, []);
  await queue.resume();
  await last.waitUntilFinished(events, LIMIT_MS);
  assert.deepStrictEqual(order, ["first", "second", "third", "last"]);
  assert.strictEqual((await queue.getJobCounts("completed")).completed, 4);
  await queue.drain();
  await queue.clean(0, 100, "completed");
  assert.strictEqual((await queue.getJobCounts("completed")).completed, 0);
  await close();
}

async function repeating(port) {
  let count = 0;
  let enough;
  const done = new Promise((resolve) => (enough = resolve));
  const { queue, close } = await rig(port, "repeating", async () => {
    count += 1;
    if (count === 3) enough();
  });
  await queue.upsertJobScheduler("often", { every: 150 }, { name: "tick", data: {} });
  await done;
  assert.strictEqual((await queue.getJobSchedulers()).length, 1);
  assert.strictEqual(await queue.removeJobScheduler("often"), true);
  assert.strictEqual((await queue.getJobSchedulers()).length, 0);
  await close();
}

async function flows(port) {
  const { all, events, close } = await rig(port, "flow", async (job) => {
    if (job.name !== "sum") return job.data.n;
    const children = Object.values(await job.getChildrenValues());
    return children.reduce((left, right) => left + right, 0);
  });
  const producer = new FlowProducer(all);
  const children = [1, 2, 3].map((n) => ({ name: "leaf", data: { n }, queueName: "flow" }));
  const flow = await producer.add({ name: "sum", queueName: "flow", children });
  assert.strictEqual(await flow.job.waitUntilFinished(events, LIMIT_MS), 6);
  await producer.close();
  await close();
}

// Of two workers one takes its jobs along when it is closed by force; the other finishes them.
async function stalled(port) {
  const limits = { lockDuration: 500, stalledInterval: 300 };
  const first = await rig(port, "stalled", () => wait(LIMIT_MS), { ...limits, skipLockRenewal: true });
  const active = new Promise((resolve) => first.events.once("active", resolve));
  const job = await first.queue.add("slow", { n: 1 });
  await active;
  const second = new Worker("stalled", async () => "rescued", { ...first.all, ...limits });
  await first.worker.close(true);
  assert.strictEqual(await job.waitUntilFinished(first.events, LIMIT_MS), "rescued");
  await second.close();
  await first.close();
}

async function rates(port) {
  const limiter = { max: 5, duration: 300 };
  const { queue, events, close } = await rig(port, "rates", async () => {}, { limiter, concurrency: 4 });
  const begun = Date.now();
  const all = await queue.addBulk([...Array(12).keys()].map((n) => ({ name: "limited", data: { n } })));
  await Promise.all(all.map((job) => job.waitUntilFinished(events, LIMIT_MS)));
  assert.ok(Date.now() - begun >= 500, `${Date.now() - begun} ms`);
  await queue.obliterate({ force: true });
  assert.deepStrictEqual(await queue.getJobs(), []);
  await close();
}

async function main(port) {
  const client = new Redis(port);
  await client.flushall();
  await Promise.all([jobs, pausing, repeating, flows, stalled, rates].map((check) => check(port)));
  const strangers = (await client.keys("*")).filter((key) => !key.startsWith(prefix));
  assert.deepStrictEqual(strangers, []);
  await client.quit();
  console.log("bullmq: good");
}

main(Number(process.argv[2])).then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
