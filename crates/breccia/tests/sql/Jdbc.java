// The JDBC driver as programs use it: prepared statements, transactions, batches, cursors, COPY, cancels.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;
import java.util.Properties;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PGobject;

public class Jdbc {
  static String url;

  interface Work {
    void run() throws Exception;
  }

  static Connection connect(String... more) throws SQLException {
    Properties properties = new Properties();
    properties.setProperty("user", "breccia");
    properties.setProperty("password", "secret");
    for (int at = 0; at < more.length; at += 2) {
      properties.setProperty(more[at], more[at + 1]);
    }
    return DriverManager.getConnection(url, properties);
  }

  static void same(Object found, Object wanted) {
    if (!String.valueOf(found).equals(String.valueOf(wanted))) {
      throw new AssertionError(found + ", not " + wanted);
    }
  }

  static void fails(String state, Work work) throws Exception {
    try {
      work.run();
    } catch (SQLException error) {
      if (!state.equals(error.getSQLState())) {
        throw error;
      }
      return;
    }
    throw new AssertionError("no error " + state);
  }

  static void run(Connection c, String sql) throws SQLException {
    try (Statement statement = c.createStatement()) {
      statement.execute(sql);
    }
  }

  static String value(Connection c, String sql, Object... values) throws SQLException {
    try (PreparedStatement statement = c.prepareStatement(sql)) {
      for (int at = 0; at < values.length; at++) {
        statement.setObject(at + 1, values[at]);
      }
      try (ResultSet rows = statement.executeQuery()) {
        return rows.next() ? rows.getString(1) : "no row";
      }
    }
  }

  /** One statement prepared once is executed far beyond the threshold at which it gets a name. */
  static void basics(String... more) throws Exception {
    try (Connection c = connect(more)) {
      run(c, "create table if not exists x (id serial primary key, v text)");
      PreparedStatement insert =
          c.prepareStatement("insert into x (v) values (?)", Statement.RETURN_GENERATED_KEYS);
      PreparedStatement select = c.prepareStatement("select v from x where id = ?");
      for (int round = 0; round < 40; round++) {
        insert.setString(1, "j" + round);
        same(insert.executeUpdate(), 1);
        ResultSet key = insert.getGeneratedKeys();
        key.next();
        select.setInt(1, key.getInt(1));
        ResultSet row = select.executeQuery();
        row.next();
        same(row.getString(1), "j" + round);
      }
      for (int round = 0; round < 20; round++) {
        same(value(c, "select ?::int + ?", round, 1), round + 1);
      }
      try (Statement two = c.createStatement()) {
        two.execute("select 1; insert into x (v) values ('two'); select 3");
        two.getMoreResults();
        same(two.getUpdateCount(), 1);
        two.getMoreResults();
        two.getResultSet().next();
        same(two.getResultSet().getInt(1), 3);
      }
      ResultSet tables = c.getMetaData().getTables(null, "public", "x", null);
      same(tables.next() && tables.getString("TABLE_NAME").equals("x"), true);
      ResultSet keys = c.getMetaData().getPrimaryKeys(null, "public", "x");
      same(keys.next() && keys.getString("COLUMN_NAME").equals("id"), true);
    }
  }

  static void types() throws Exception {
    try (Connection c = connect()) {
      run(c, "create type mood as enum ('sad', 'happy')");
      run(c, "create table kinds (i int, l bigint, n numeric, d float8, b bytea, u uuid,"
          + " j jsonb, a int[], s text[], t timestamptz, m mood, o boolean)");
      PreparedStatement insert =
          c.prepareStatement("insert into kinds values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
      UUID id = UUID.randomUUID();
      byte[] bytes = {0, 1, -1, 127, -128, 92, 39};
      for (int round = 0; round < 12; round++) {
        insert.setInt(1, round);
        insert.setLong(2, Long.MAX_VALUE - round);
        insert.setBigDecimal(3, new BigDecimal("12345678901234567890.123456789"));
        insert.setDouble(4, 0.1);
        insert.setBytes(5, bytes);
        insert.setObject(6, id);
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"a\": [1, null, \"x\"]}");
        insert.setObject(7, json);
        insert.setArray(8, c.createArrayOf("int4", new Integer[] {round, null, -1}));
        insert.setArray(9, c.createArrayOf("text", new String[] {"a,b", "\"", null, ""}));
        insert.setTimestamp(10, new java.sql.Timestamp(round * 1000L));
        insert.setObject(11, "happy", Types.OTHER);
        insert.setBoolean(12, round % 2 == 0);
        insert.executeUpdate();
      }
      for (int at = 1; at <= 12; at++) {
        insert.setNull(at, at == 8 || at == 9 ? Types.ARRAY : Types.OTHER);
      }
      insert.setNull(12, Types.BOOLEAN);
      insert.executeUpdate();
      PreparedStatement select = c.prepareStatement("select * from kinds where i = ?");
      for (int round = 0; round < 12; round++) {
        select.setInt(1, round);
        ResultSet row = select.executeQuery();
        row.next();
        same(row.getLong(2), Long.MAX_VALUE - round);
        same(row.getBigDecimal(3), "12345678901234567890.123456789");
        same(row.getDouble(4), 0.1);
        same(Arrays.equals(row.getBytes(5), bytes), true);
        same(row.getObject(6), id);
        same(row.getString(7), "{\"a\": [1, null, \"x\"]}");
        same(Arrays.toString((Object[]) row.getArray(8).getArray()), "[" + round + ", null, -1]");
        same(Arrays.toString((Object[]) row.getArray(9).getArray()), "[a,b, \", null, ]");
        same(row.getTimestamp(10).getTime(), round * 1000L);
        same(row.getString(11), "happy");
        same(row.getBoolean(12), round % 2 == 0);
      }
      ResultSet row = c.createStatement().executeQuery("select * from kinds where i is null");
      row.next();
      for (int at = 1; at <= 12; at++) {
        same(row.getObject(at), null);
      }
      try (CallableStatement call = c.prepareCall("{ ? = call upper(?) }")) {
        call.registerOutParameter(1, Types.VARCHAR);
        call.setString(2, "low");
        call.execute();
        same(call.getString(1), "LOW");
      }
      Array list = c.createArrayOf("int4", new Integer[] {3, 5});
      same(value(c, "select count(*) from kinds where i = any (?)", list), 2);
      run(c, "drop table kinds; drop type mood");
    }
  }

  static void transactions() throws Exception {
    try (Connection c = connect()) {
      c.setAutoCommit(false);
      run(c, "insert into x (v) values ('kept')");
      Savepoint savepoint = c.setSavepoint();
      for (int round = 0; round < 8; round++) {
        run(c, "insert into x (v) values ('undone')");
        fails("22012", () -> value(c, "select 1 / ?::int", 0));
        fails("25P02", () -> value(c, "select 1"));
        c.rollback(savepoint);
      }
      Savepoint named = c.setSavepoint("named one");
      c.releaseSavepoint(named);
      same(value(c, "select count(*) from x where v = 'undone'"), 0);
      c.commit();
      run(c, "insert into x (v) values ('gone')");
      c.rollback();
      same(value(c, "select count(*) from x where v = 'gone'"), 0);
      same(value(c, "select count(*) from x where v = 'kept'"), 1);
      c.rollback();
      c.setReadOnly(true);
      for (int round = 0; round < 8; round++) {
        same(value(c, "select count(*) from x where v = 'kept'"), 1);
        fails("25006", () -> run(c, "insert into x (v) values ('no')"));
        c.rollback();
      }
      c.setReadOnly(false);
      c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
      same(value(c, "show transaction_isolation"), "serializable");
      run(c, "delete from x where v = 'kept'");
      c.commit();
      c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
      c.setAutoCommit(true);
      same(value(c, "select count(*) from x where v = 'kept'"), 0);
    }
    // The driver sets a savepoint before each statement, and goes back to it by itself.
    try (Connection c = connect("autosave", "always")) {
      c.setAutoCommit(false);
      run(c, "create table saved (a int)");
      for (int round = 0; round < 10; round++) {
        run(c, "insert into saved values (" + round + ")");
        fails("22012", () -> value(c, "select 1 / ?::int", 0));
      }
      c.commit();
      same(value(c, "select count(*) from saved"), 10);
      run(c, "drop table saved");
      c.commit();
    }
  }

  static void batches(String... more) throws Exception {
    try (Connection c = connect(more)) {
      run(c, "create table many (a int primary key, b text)");
      PreparedStatement insert = c.prepareStatement("insert into many values (?, ?)");
      for (int round = 0; round < 3; round++) {
        for (int at = 0; at < 2000; at++) {
          insert.setInt(1, round * 2000 + at);
          insert.setString(2, "x".repeat(at % 50));
          insert.addBatch();
        }
        same(insert.executeBatch().length, 2000);
      }
      same(value(c, "select count(*) from many"), 6000);
      c.setAutoCommit(false);
      for (int at : new int[] {6000, 6001, 5, 6002}) {
        insert.setInt(1, at);
        insert.setString(2, "");
        insert.addBatch();
      }
      try {
        insert.executeBatch();
        throw new AssertionError("no error of a batch");
      } catch (BatchUpdateException error) {
        same(error.getSQLState(), "23505");
      }
      c.rollback();
      c.setAutoCommit(true);
      same(value(c, "select count(*) from many"), 6000);
      Statement several = c.createStatement();
      several.addBatch("update many set b = 'one' where a = 1");
      several.addBatch("delete from many where a < 10");
      same(Arrays.toString(several.executeBatch()), "[1, 10]");
      run(c, "drop table many");
    }
  }

  static void cursors() throws Exception {
    try (Connection c = connect()) {
      c.setAutoCommit(false);
      for (int round = 0; round < 8; round++) {
        try (PreparedStatement statement =
            c.prepareStatement("select g, repeat('y', 100) from generate_series(1, ?) g")) {
          statement.setFetchSize(50);
          statement.setInt(1, 5000);
          long sum = 0;
          ResultSet rows = statement.executeQuery();
          while (rows.next()) {
            sum += rows.getInt(1);
            if (rows.getInt(1) % 1000 == 0) {
              // Another statement of the transaction between two portions.
              same(value(c, "select ?::text", "between"), "between");
            }
          }
          same(sum, 5000L * 5001 / 2);
        }
        // One that is left in the middle.
        try (Statement statement = c.createStatement()) {
          statement.setFetchSize(10);
          ResultSet rows = statement.executeQuery("select * from generate_series(1, 1000)");
          rows.next();
        }
        c.commit();
      }
      run(c, "declare hand cursor with hold for select * from generate_series(1, 10)");
      c.commit();
      same(value(c, "fetch absolute 7 from hand"), 7);
      run(c, "close hand");
      c.commit();
    }
  }

  static void copies() throws Exception {
    try (Connection c = connect()) {
      run(c, "create temp table ct (a int, b text)");
      CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
      StringBuilder text = new StringBuilder();
      for (int at = 0; at < 20000; at++) {
        text.append(at).append('\t').append("x".repeat(50)).append('\n');
      }
      same(copy.copyIn("copy ct from stdin", new StringReader(text.toString())), 20000);
      StringWriter out = new StringWriter();
      same(copy.copyOut("copy (select * from ct order by a) to stdout", out), 20000);
      same(out.toString().equals(text.toString()), true);
      ByteArrayOutputStream binary = new ByteArrayOutputStream();
      copy.copyOut("copy ct to stdout (format binary)", binary);
      ByteArrayInputStream in = new ByteArrayInputStream(binary.toByteArray());
      same(copy.copyIn("copy ct from stdin (format binary)", in), 20000);
      fails("22P02", () -> copy.copyIn("copy ct from stdin", new StringReader("no number\n")));
      same(value(c, "select count(*) from ct"), 40000);
    }
  }

  static void large() throws Exception {
    byte[] bytes = new byte[20 << 20];
    new Random(7).nextBytes(bytes);
    try (Connection c = connect()) {
      run(c, "create table big (id int, b bytea)");
      for (int round = 0; round < 7; round++) {
        try (PreparedStatement insert = c.prepareStatement("insert into big values (?, ?)")) {
          insert.setInt(1, round);
          insert.setBytes(2, round == 6 ? bytes : new byte[] {1});
          insert.executeUpdate();
        }
      }
      PreparedStatement select = c.prepareStatement("select b from big where id = ?");
      for (int round = 0; round < 7; round++) {
        select.setInt(1, round);
        ResultSet row = select.executeQuery();
        row.next();
        same(row.getBytes(1).length, round == 6 ? bytes.length : 1);
        same(round < 6 || Arrays.equals(row.getBytes(1), bytes), true);
      }
      same(value(c, "select length(?)", "z".repeat(20 << 20)), 20 << 20);
      run(c, "drop table big");
      // Large objects are read and written by the old function-call message.
      c.setAutoCommit(false);
      LargeObjectManager manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
      long id = manager.createLO();
      LargeObject object = manager.open(id, LargeObjectManager.READWRITE);
      object.write(Arrays.copyOf(bytes, 100_000));
      object.seek(10);
      same(Arrays.equals(object.read(100), Arrays.copyOfRange(bytes, 10, 110)), true);
      object.close();
      manager.delete(id);
      c.commit();
    }
  }

  static void notices() throws Exception {
    try (Connection heard = connect(); Connection said = connect()) {
      run(heard, "listen ch");
      PGConnection listener = heard.unwrap(PGConnection.class);
      for (int round = 0; round < 5; round++) {
        run(said, "notify ch, 'message " + round + "'");
        PGNotification[] found = listener.getNotifications(5000);
        same(found == null ? "none" : found[0].getParameter(), "message " + round);
      }
      run(heard, "unlisten *");
      Statement warned = said.createStatement();
      warned.execute("do $$ begin raise notice 'look here'; end $$");
      same(warned.getWarnings().getMessage(), "look here");
    }
  }

  static void cancels() throws Exception {
    var others = Executors.newCachedThreadPool();
    try (Connection c = connect()) {
      for (String sql : new String[] {
          "select pg_sleep(20)", "select count(*) from generate_series(1, 1000000000)"}) {
        Statement statement = c.createStatement();
        Future<?> later = others.submit(() -> {
          Thread.sleep(300);
          statement.cancel();
          return null;
        });
        long begun = System.nanoTime();
        fails("57014", () -> statement.executeQuery(sql));
        later.get();
        same(System.nanoTime() - begun < 5_000_000_000L, true);
        same(value(c, "select 7"), 7);
        statement.setQueryTimeout(1);
        fails("57014", () -> statement.executeQuery(sql));
        same(value(c, "select 8"), 8);
      }
      run(c, "set statement_timeout = 100");
      fails("57014", () -> run(c, "select pg_sleep(20)"));
      run(c, "reset statement_timeout");
      same(value(c, "select 9"), 9);
    } finally {
      others.shutdown();
    }
    // A socket's own timeout closes the connection.
    try (Connection c = connect("socketTimeout", "1")) {
      fails("08006", () -> run(c, "select pg_sleep(20)"));
      same(c.isClosed(), true);
    }
  }

  static void settings() throws Exception {
    try (Connection c = connect("ApplicationName", "zork", "options", "-c work_mem=6MB");
        Connection other = connect()) {
      for (int round = 0; round < 8; round++) {
        same(value(c, "select current_setting('application_name')"), "zork");
        same(value(c, "show work_mem"), "6MB");
        same(value(other, "show work_mem"), "4MB");
      }
      run(c, "create schema if not exists side; create table if not exists side.apart (a int)");
      c.setSchema("side");
      for (int round = 0; round < 8; round++) {
        same(value(c, "select count(*) from apart"), 0);
        fails("42P01", () -> value(other, "select count(*) from apart"));
      }
      c.setClientInfo("ApplicationName", "changed");
      same(value(c, "show application_name"), "changed");
      run(c, "set timezone = 'Asia/Tokyo'");
      same(value(c, "show timezone"), "Asia/Tokyo");
      run(c, "create temp table mine (a int)");
      run(c, "insert into mine values (5)");
      same(value(c, "select a from mine"), 5);
      fails("42P01", () -> value(other, "select a from mine"));
      same(value(c, "select pg_try_advisory_lock(77)"), "t");
      same(value(other, "select pg_try_advisory_lock(77)"), "f");
      same(value(c, "select pg_advisory_unlock(77)"), "t");
      run(c, "drop schema side cascade");
    }
  }

  static void ends() throws Exception {
    try (Connection c = connect()) {
      try {
        value(c, "select pg_terminate_backend(pg_backend_pid())");
        throw new AssertionError("its server lived on");
      } catch (SQLException error) {
        same(error.getSQLState().startsWith("57P01") || error.getSQLState().startsWith("08"), true);
      }
    }
    for (int round = 0; round < 10; round++) {
      Connection c = connect();
      c.setAutoCommit(false);
      run(c, "insert into x (v) values ('left')");
      Statement statement = c.createStatement();
      statement.setFetchSize(3);
      statement.executeQuery("select * from generate_series(1, 100000)").next();
      if (round % 2 == 0) {
        c.close();
      } else {
        c.abort(Runnable::run);
      }
    }
    try (Connection c = connect()) {
      same(c.isValid(5), true);
      same(value(c, "select count(*) from x where v = 'left'"), 0);
    }
  }

  static void threads() throws Exception {
    var pool = Executors.newFixedThreadPool(16);
    var all = new java.util.ArrayList<Future<?>>();
    for (int number = 0; number < 16; number++) {
      int own = number;
      all.add(pool.submit(() -> {
        try (Connection c = connect()) {
          for (int round = 0; round < 60; round++) {
            same(value(c, "select ?::int", own * 1000 + round), own * 1000 + round);
          }
        }
        return null;
      }));
    }
    for (Future<?> one : all) {
      one.get();
    }
    pool.shutdown();
  }

  static void step(String name, Work work) throws Exception {
    System.out.println(name);
    work.run();
  }

  public static void main(String[] words) throws Exception {
    url = "jdbc:postgresql://127.0.0.1:" + words[0] + "/" + words[1];
    step("basics", Jdbc::basics);
    step("simple", () -> basics("preferQueryMode", "simple"));
    step("cached", () -> basics("preferQueryMode", "extendedCacheEverything"));
    step("named at once", () -> basics("prepareThreshold", "1"));
    step("types", Jdbc::types);
    step("transactions", Jdbc::transactions);
    step("batches", Jdbc::batches);
    step("rewritten batches", () -> batches("reWriteBatchedInserts", "true"));
    step("cursors", Jdbc::cursors);
    step("copies", Jdbc::copies);
    step("large", Jdbc::large);
    step("notices", Jdbc::notices);
    step("cancels", Jdbc::cancels);
    step("settings", Jdbc::settings);
    step("ends", Jdbc::ends);
    step("threads", Jdbc::threads);
    System.out.println("all good");
  }
}
