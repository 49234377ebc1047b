//! `mysql_async`, among it what Stalwart does with it, in its own order.

use futures_util::TryStreamExt;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, IsolationLevel, Opts, OptsBuilder, Params, Pool, TxOpts, Value, params};

use crate::{Done, SIZES, noise};

pub(crate) async fn all(url: &str) -> Done {
    let pool = Pool::new(Opts::from_url(url)?);
    tables(&pool).await?;
    statements(&pool).await?;
    values(&pool).await?;
    transactions(&pool).await?;
    several_results(&pool).await?;
    large(&pool).await?;
    mistakes(&pool).await?;
    many(&pool).await?;
    pool.disconnect().await?;
    found_rows(url).await?;
    stalwart(url).await
}

async fn rows<T: FromRow + Send + 'static>(c: &mut Conn, sql: &str, with: Params) -> Done<Vec<T>> {
    Ok(c.exec(sql, with).await?)
}

async fn tables(pool: &Pool) -> Done {
    let mut c = pool.get_conn().await?;
    for sql in [
        "DROP TABLE IF EXISTS r",
        "CREATE TABLE r (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100), b LONGBLOB) \
         DEFAULT CHARSET utf8mb4",
        "DROP PROCEDURE IF EXISTS rp",
        "CREATE PROCEDURE rp(x INT) BEGIN SELECT x; SELECT x + 1, 'b'; END",
    ] {
        c.query_drop(sql).await?;
    }
    Ok(())
}

async fn statements(pool: &Pool) -> Done {
    for i in 0..20 {
        let mut c = pool.get_conn().await?;
        let value = format!("v{i} ☃");
        c.exec_drop("INSERT INTO r (v) VALUES (?)", (&value,))
            .await?;
        let id = c.last_insert_id().ok_or("no identity")?;
        println!("inserted {id} {}", c.affected_rows());
        let seen: Vec<(u64, String)> =
            rows(&mut c, "SELECT id, v FROM r WHERE id = ?", (id,).into()).await?;
        println!("seen {seen:?}");
        let named = params! { "id" => id, "v" => &value };
        let same: Option<i64> = c
            .exec_first("SELECT COUNT(*) FROM r WHERE id = :id AND v = :v", named)
            .await?;
        println!("same {same:?}");
    }
    let mut c = pool.get_conn().await?;
    let more = (0..10).map(|i| (format!("batch {i}"),));
    c.exec_batch("INSERT INTO r (v) VALUES (?)", more).await?;
    let count: Option<i64> = c.query_first("SELECT COUNT(*) FROM r").await?;
    println!("count {count:?}");
    c.query_drop("UPDATE r SET v = 'same' WHERE id = 1").await?;
    c.query_drop("UPDATE r SET v = 'same' WHERE id = 1").await?;
    println!("unchanged {} {}", c.affected_rows(), c.info());
    c.query_drop("SELECT 1 / 0").await?;
    println!("warnings {}", c.get_warnings());
    let mut stream = c.query_iter("SELECT seq FROM seq_1_to_20000").await?;
    let sum = stream
        .stream::<u64>()
        .await?
        .ok_or("no rows")?
        .try_fold(0, |sum, it| std::future::ready(Ok(sum + it)))
        .await?;
    println!("streamed {sum}");
    Ok(())
}

async fn values(pool: &Pool) -> Done {
    let mut c = pool.get_conn().await?;
    let sql = "SELECT CAST(? AS SIGNED), CAST(? AS UNSIGNED), CAST(? AS DECIMAL(20, 6)), \
               CAST(? AS DOUBLE), CAST(? AS DATETIME(6)), CAST(? AS TIME(6)), CAST(? AS DATE), \
               CAST(? AS BINARY), CAST(? AS CHAR CHARACTER SET utf8mb4), ?";
    let given: Vec<Value> = vec![
        Value::Int(i64::MIN),
        Value::UInt(u64::MAX),
        "12345.678901".into(),
        Value::Double(1.5),
        Value::Date(2024, 2, 29, 23, 59, 59, 123_456),
        Value::Time(true, 1, 6, 0, 0, 5),
        Value::Date(2024, 2, 29, 0, 0, 0, 0),
        Value::Bytes(vec![0, 255, 1]),
        "名前😀".into(),
        Value::NULL,
    ];
    for _ in 0..3 {
        let row: Vec<mysql_async::Row> = c.exec(sql, given.clone()).await?;
        for row in row {
            println!("values {:?}", row.unwrap());
        }
    }
    Ok(())
}

async fn transactions(pool: &Pool) -> Done {
    let mut options = TxOpts::new();
    options.with_isolation_level(IsolationLevel::ReadCommitted);
    let mut t = pool.start_transaction(options).await?;
    t.query_drop("INSERT INTO r (v) VALUES ('gone')").await?;
    let own: Option<i64> = t
        .query_first("SELECT COUNT(*) FROM r WHERE v = 'gone'")
        .await?;
    t.rollback().await?;
    let mut t = pool.start_transaction(TxOpts::new()).await?;
    t.query_drop("INSERT INTO r (v) VALUES ('kept')").await?;
    t.commit().await?;
    let mut c = pool.get_conn().await?;
    let left: Vec<String> = c
        .query("SELECT v FROM r WHERE v IN ('gone', 'kept')")
        .await?;
    println!("transactions {own:?} {left:?}");
    let mut options = TxOpts::new();
    options.with_readonly(true);
    let mut t = c.start_transaction(options).await?;
    let refused = t.query_drop("INSERT INTO r (v) VALUES ('no')").await;
    println!("read only {}", refused.unwrap_err());
    t.rollback().await?;
    Ok(())
}

async fn several_results(pool: &Pool) -> Done {
    let mut c = pool.get_conn().await?;
    for text in [
        "SELECT 1, 'a'; UPDATE r SET v = 'm' WHERE id = 2; SELECT 'c'",
        "CALL rp(4)",
    ] {
        let mut results = c.query_iter(text).await?;
        while !results.is_empty() {
            let rows: Vec<mysql_async::Row> = results.collect().await?;
            let rows: Vec<_> = rows.into_iter().map(mysql_async::Row::unwrap).collect();
            println!("result {rows:?}");
        }
        drop(results);
    }
    let mut results = c.exec_iter("CALL rp(?)", (7,)).await?;
    let first: Vec<i64> = results.collect().await?;
    println!("called {first:?}");
    Ok(())
}

async fn large(pool: &Pool) -> Done {
    let mut c = pool.get_conn().await?;
    for size in SIZES {
        let value = noise(size);
        c.exec_drop("INSERT INTO r (b) VALUES (?)", (&value,))
            .await?;
        let id = c.last_insert_id();
        let binary: Option<Vec<u8>> = c.exec_first("SELECT b FROM r WHERE id = ?", (id,)).await?;
        let text: Option<Vec<u8>> = c
            .query_first(format!("SELECT b FROM r WHERE id = {}", id.unwrap_or(0)))
            .await?;
        let same = |it: Option<Vec<u8>>| it.as_ref() == Some(&value);
        println!("large {size} {} {}", same(binary), same(text));
    }
    Ok(())
}

async fn mistakes(pool: &Pool) -> Done {
    let mut c = pool.get_conn().await?;
    for text in [
        "SELEC 1",
        "SELECT * FROM nothing_like_it",
        "INSERT INTO r (id) VALUES (1)",
    ] {
        println!("text {}", c.query_drop(text).await.unwrap_err());
        println!("binary {}", c.exec_drop(text, ()).await.unwrap_err());
    }
    c.ping().await?;
    Ok(())
}

async fn many(pool: &Pool) -> Done {
    let work = (0..40).map(|i| async move {
        let mut c = pool.get_conn().await?;
        c.exec_drop("INSERT INTO r (v) VALUES (?)", (format!("c{i}"),))
            .await?;
        let id = c.last_insert_id();
        let back: Option<String> = c.exec_first("SELECT v FROM r WHERE id = ?", (id,)).await?;
        Done::<bool>::Ok(back == Some(format!("c{i}")))
    });
    let all = futures_util::future::try_join_all(work).await?;
    println!("many {}", all.into_iter().all(|it| it));
    Ok(())
}

async fn found_rows(url: &str) -> Done {
    for found in [true, false] {
        let options = OptsBuilder::from_opts(Opts::from_url(url)?).client_found_rows(found);
        let mut c = Conn::new(options).await?;
        c.query_drop("UPDATE r SET v = 'same' WHERE id = 1").await?;
        c.exec_drop("UPDATE r SET v = 'same' WHERE id = ?", (1,))
            .await?;
        println!("found rows {found}: {}", c.affected_rows());
        c.disconnect().await?;
    }
    Ok(())
}

/// Stalwart's connections, tables, and a batch of writes.
async fn stalwart(url: &str) -> Done {
    let options = OptsBuilder::from_opts(Opts::from_url(url)?)
        .client_found_rows(true)
        .prefer_socket(true)
        .stmt_cache_size(32);
    let pool = Pool::new(options);
    let mut c = pool.get_conn().await?;
    c.query_drop("DROP TABLE IF EXISTS s").await?;
    c.query_drop(
        "CREATE TABLE IF NOT EXISTS s (k TINYBLOB, v MEDIUMBLOB NOT NULL, PRIMARY KEY (k(255))) \
         ENGINE=InnoDB",
    )
    .await?;
    c.query_drop("DROP TABLE IF EXISTS sc").await?;
    c.query_drop(
        "CREATE TABLE IF NOT EXISTS sc (k TINYBLOB, v BIGINT NOT NULL, PRIMARY KEY (k(255))) \
         ENGINE=InnoDB",
    )
    .await?;
    drop(c);
    for round in 0..10_u8 {
        let mut c = pool.get_conn().await?;
        c.query_drop("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            .await?;
        c.query_drop("START TRANSACTION").await?;
        let upsert = "INSERT INTO s (k, v) VALUES (?, ?) ON DUPLICATE KEY UPDATE v = VALUES(v)";
        c.exec_drop(upsert, (&[0, round % 4][..], noise(100)))
            .await?;
        print!("stalwart {round} upsert {}", c.affected_rows());
        let count = "INSERT INTO sc (k, v) VALUES (?, LAST_INSERT_ID(?)) \
                     ON DUPLICATE KEY UPDATE v = LAST_INSERT_ID(v + ?)";
        c.exec_drop(count, (&b"counter"[..], 5, 5)).await?;
        let now: Option<i64> = c.exec_first("SELECT LAST_INSERT_ID()", ()).await?;
        c.query_drop("COMMIT").await?;
        drop(c);
        let mut c = pool.get_conn().await?;
        let read: Option<Vec<u8>> = c
            .exec_first("SELECT v FROM s WHERE k = ?", (&[0, round % 4][..],))
            .await?;
        let counted: Option<i64> = c
            .exec_first("SELECT v FROM sc WHERE k = ?", (&b"counter"[..],))
            .await?;
        println!(" {now:?} {:?} {counted:?}", read.map(|it| it.len()));
        c.query_drop("ROLLBACK;").await?;
    }
    let mut c = pool.get_conn().await?;
    let duplicate = c
        .exec_drop("INSERT INTO sc (k, v) VALUES (?, 1)", (&b"counter"[..],))
        .await;
    println!("stalwart {}", duplicate.unwrap_err());
    drop(c);
    pool.disconnect().await?;
    Ok(())
}
