//! sqlx: its pool, its statement cache, transactions, streams.

use futures_util::TryStreamExt;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::{Done, noise};

/// sqlx 0.9 does not find again what is longer, whoever answers.
const SIZES: [usize; 2] = [1 << 20, (16 << 20) - 1];

pub(crate) async fn all(url: &str) -> Done {
    let pool = MySqlPoolOptions::new()
        .max_connections(6)
        .connect(url)
        .await?;
    for sql in [
        "DROP TABLE IF EXISTS x",
        "CREATE TABLE x (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100), b LONGBLOB, d DOUBLE) \
         DEFAULT CHARSET utf8mb4",
    ] {
        pool.execute(sql).await?;
    }
    statements(&pool).await?;
    transactions(&pool).await?;
    large(&pool).await?;
    mistakes(&pool).await?;
    let work = (0..40).map(|i| one(&pool, i));
    let all = futures_util::future::try_join_all(work).await?;
    println!("many {}", all.into_iter().all(|it| it));
    pool.close().await;
    Ok(())
}

async fn one(pool: &MySqlPool, number: i32) -> Done<bool> {
    let text = format!("m{number}");
    let mut c = pool.acquire().await?;
    let insert = sqlx::query("INSERT INTO x (v) VALUES (?)").bind(&text);
    let id = insert.execute(&mut *c).await?.last_insert_id();
    let read = sqlx::query_scalar("SELECT v FROM x WHERE id = ?").bind(id);
    let back: String = read.fetch_one(&mut *c).await?;
    Ok(back == text)
}

async fn statements(pool: &MySqlPool) -> Done {
    // A session sees what it wrote; a pool is several of them.
    let mut c = pool.acquire().await?;
    for i in 0..20 {
        let insert = sqlx::query("INSERT INTO x (v, d) VALUES (?, ?)");
        let done = insert
            .bind(format!("v{i} ☃"))
            .bind(f64::from(i) / 4.0)
            .execute(&mut *c)
            .await?;
        let read =
            sqlx::query_as("SELECT id, v, d, b FROM x WHERE id = ?").bind(done.last_insert_id());
        let row: (i32, String, f64, Option<Vec<u8>>) = read.fetch_one(&mut *c).await?;
        println!("row {} {row:?}", done.rows_affected());
    }
    drop(c);
    let update = "UPDATE x SET v = 'same' WHERE id < ?";
    for _ in 0..2 {
        let done = sqlx::query(update).bind(5).execute(pool).await?;
        println!("updated {}", done.rows_affected());
    }
    let mut rows = sqlx::query("SELECT CAST(seq AS SIGNED) FROM seq_1_to_20000").fetch(pool);
    let mut sum = 0;
    while let Some(row) = rows.try_next().await? {
        sum += row.get::<i64, _>(0);
    }
    println!("streamed {sum}");
    Ok(())
}

async fn transactions(pool: &MySqlPool) -> Done {
    let mut c = pool.acquire().await?;
    let mut t = c.begin().await?;
    t.execute("INSERT INTO x (v) VALUES ('gone')").await?;
    t.rollback().await?;
    let mut t = c.begin().await?;
    t.execute("INSERT INTO x (v) VALUES ('kept')").await?;
    let mut inner = t.begin().await?;
    inner.execute("INSERT INTO x (v) VALUES ('inner')").await?;
    inner.rollback().await?;
    t.commit().await?;
    let left: Vec<String> =
        sqlx::query_scalar("SELECT v FROM x WHERE v IN ('gone', 'kept', 'inner')")
            .fetch_all(&mut *c)
            .await?;
    println!("left {left:?}");
    drop(c);
    // Dropped without an end.
    let mut t = pool.begin().await?;
    t.execute("INSERT INTO x (v) VALUES ('dropped')").await?;
    drop(t);
    let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM x WHERE v = 'dropped'")
        .fetch_one(pool)
        .await?;
    println!("dropped {left}");
    Ok(())
}

async fn large(pool: &MySqlPool) -> Done {
    let mut c = pool.acquire().await?;
    for size in SIZES {
        let value = noise(size);
        let insert = sqlx::query("INSERT INTO x (b) VALUES (?)").bind(&value);
        let id = insert.execute(&mut *c).await?.last_insert_id();
        let read = sqlx::query_scalar("SELECT b FROM x WHERE id = ?").bind(id);
        let binary: Vec<u8> = read.fetch_one(&mut *c).await?;
        let text = AssertSqlSafe(format!("SELECT b FROM x WHERE id = {id}"));
        let text: Vec<u8> = sqlx::raw_sql(text).fetch_one(&mut *c).await?.get(0);
        println!("large {size} {} {}", binary == value, text == value);
    }
    Ok(())
}

async fn mistakes(pool: &MySqlPool) -> Done {
    for text in [
        "SELEC 1",
        "SELECT * FROM nothing_like_it",
        "INSERT INTO x (id) VALUES (1)",
    ] {
        let error = sqlx::query(text).execute(pool).await.unwrap_err();
        println!("mistake {error}");
    }
    let mut c = pool.acquire().await?;
    c.ping().await?;
    Ok(())
}
