# Sidekiq, unchanged but for a namespace with a hash tag: jobs, retries, schedules, the web page's numbers.
#
# Argument: port. Starts the processor in this process and ends it. Ends with status 0 when all held.
require "sidekiq"
require "sidekiq/api"
require "sidekiq/cli"
require "redis-namespace"

PORT = Integer(ARGV[0])
NAMESPACE = "{sidekiq}"
LIMIT = 30
options = { url: "redis://127.0.0.1:#{PORT}/0", namespace: NAMESPACE }
Sidekiq.configure_client { |config| config.redis = options }
Sidekiq.configure_server { |config| config.redis = options }
Sidekiq.logger.level = Logger::FATAL

def plain
  @plain ||= Redis.new(port: PORT)
end

def wait_for(what)
  deadline = Time.now + LIMIT
  until yield
    raise "waited in vain: #{what}" if Time.now > deadline
    sleep 0.02
  end
end

def check(what)
  raise "not so: #{what}" unless yield
end

class Add
  include Sidekiq::Worker
  def perform(key, number)
    Sidekiq.redis { |connection| connection.incrby("own:#{key}", number) }
  end
end

class Fails
  include Sidekiq::Worker
  sidekiq_options retry: 5, queue: "second"
  def perform
    raise "as wanted"
  end
end

def sum(key)
  Sidekiq.redis { |connection| connection.get("own:#{key}") }.to_i
end

Redis.silence_deprecations = true
plain.flushall
Add.perform_async("one", 5)
100.times { |number| Add.perform_async("many", number) }
Add.perform_bulk((0...50).map { |number| ["bulk", number] })
Add.perform_in(0.5, "late", 1)
scheduled = Add.perform_in(3600, "never", 1)
Fails.perform_async
check("queues") { Sidekiq::Queue.all.map(&:name).sort == %w[default second] }
check("size") { Sidekiq::Queue.new.size == 151 }
check("find") { Sidekiq::ScheduledSet.new.find_job(scheduled).klass == "Add" }

# What `sidekiq -c 4 -q default -q second` does, without its signals.
settings = Sidekiq.options.merge(
  concurrency: 4, queues: %w[default default second], strict: false, timeout: 5,
  poll_interval_average: 0.2, average_scheduled_poll_interval: 0.2
)
Sidekiq.options.merge!(settings)
require "sidekiq/launcher"
launcher = Sidekiq::Launcher.new(Sidekiq.options)
launcher.run
wait_for("one job") { sum("one") == 5 }
wait_for("many jobs") { sum("many") == 4950 }
wait_for("jobs in bulk") { sum("bulk") == 1225 }
wait_for("a job with a delay") { sum("late") == 1 }
wait_for("a retry") { Sidekiq::RetrySet.new.size == 1 }
retried = Sidekiq::RetrySet.new.first
check("the error") { retried.item["error_message"] == "as wanted" }
retried.kill
check("dead") { Sidekiq::DeadSet.new.size == 1 && Sidekiq::RetrySet.new.size == 0 }
wait_for("its process") { Sidekiq::ProcessSet.new.size == 1 }
launcher.stop
# What the process has counted since its last beat it would write at its exit.
Sidekiq::Launcher.flush_stats
check("empty") { Sidekiq::Queue.new.size == 0 && Sidekiq::ScheduledSet.new.size == 1 }
check("delete") { Sidekiq::ScheduledSet.new.find_job(scheduled).delete }
wait_for("what was counted") do
  stats = Sidekiq::Stats.new
  stats.processed == 153 && stats.failed == 1
end
check("history") { Sidekiq::Stats::History.new(1).processed.values == [153] }
strangers = plain.scan_each.reject { |key| key.start_with?(NAMESPACE) }
check("strangers #{strangers}") { strangers.empty? }
puts "sidekiq: good"
