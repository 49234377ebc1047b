//! sqlx with its pool and its cache of prepared statements, as they are by default.

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use sqlx::postgres::{
    PgAdvisoryLock, PgConnectOptions, PgListener, PgPool, PgPoolCopyExt, PgPoolOptions,
};
use sqlx::types::Json;
use sqlx::{Acquire, Connection, Error, Executor, PgConnection, Row};
use tokio::time::timeout;

use crate::{Done, noise};

fn refused<T>(outcome: Result<T, Error>, state: &str) -> Done {
    match outcome {
        Ok(_) => Err(format!("no error {state}").into()),
        Err(Error::Database(error)) if error.code().as_deref() == Some(state) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub async fn all(port: u16, database: &str) -> Done {
    let place = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("breccia")
        .password("secret")
        .database(database);
    let pool = PgPoolOptions::new()
        .max_connections(10)
        .connect_with(place.clone())
        .await?;
    basics(&pool).await?;
    transactions(&pool).await?;
    kinds(&pool).await?;
    large(&pool).await?;
    streams(&pool).await?;
    copies(&pool).await?;
    notices(&pool).await?;
    timeouts(&pool, &place).await?;
    settings(&pool, &place).await?;
    ends(&pool, &place).await?;
    many(&pool).await?;
    pool.close().await;
    Ok(())
}

async fn basics(pool: &PgPool) -> Done {
    println!("basics");
    pool.execute("create table if not exists x (id serial primary key, v text)")
        .await?;
    for round in 0..40 {
        // The two statements of a round may use two connections: the write's is kept.
        let mut c = pool.acquire().await?;
        let value = format!("s{round}");
        let insert = "insert into x (v) values ($1) returning id";
        let id: i32 = sqlx::query_scalar(insert)
            .bind(&value)
            .fetch_one(&mut *c)
            .await?;
        let found: String = sqlx::query_scalar("select v from x where id = $1")
            .bind(id)
            .fetch_one(&mut *c)
            .await?;
        assert_eq!(found, value);
    }
    let mut c = pool.acquire().await?;
    for round in 0..20_i32 {
        let uncached = sqlx::query_scalar::<_, i32>("select $1 + 1")
            .bind(round)
            .persistent(false);
        assert_eq!(uncached.fetch_one(&mut *c).await?, round + 1);
    }
    // More shapes than the cache holds: the oldest are closed.
    for round in 0..150 {
        let sql = sqlx::AssertSqlSafe(format!("select {round} + $1::int"));
        assert_eq!(
            sqlx::query_scalar::<_, i32>(sql)
                .bind(1)
                .fetch_one(&mut *c)
                .await?,
            round + 1
        );
    }
    c.clear_cached_statements().await?;
    let two: Vec<i32> = c
        .fetch_all(sqlx::raw_sql("select 1; select 2"))
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(two, [1, 2]);
    Ok(())
}

async fn transactions(pool: &PgPool) -> Done {
    println!("transactions");
    let count = "select count(*) from x where v = $1";
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into x (v) values ('kept')")
        .execute(&mut *transaction)
        .await?;
    for _ in 0..10 {
        let mut savepoint = transaction.begin().await?;
        sqlx::query("insert into x (v) values ('undone')")
            .execute(&mut *savepoint)
            .await?;
        refused(
            sqlx::query("select 1 / 0").fetch_one(&mut *savepoint).await,
            "22012",
        )?;
        refused(
            sqlx::query("select 1").fetch_one(&mut *savepoint).await,
            "25P02",
        )?;
        savepoint.rollback().await?;
    }
    transaction.commit().await?;
    let mut c = pool.acquire().await?;
    {
        let mut dropped = c.begin().await?;
        sqlx::query("insert into x (v) values ('dropped')")
            .execute(&mut *dropped)
            .await?;
    }
    for (value, wanted) in [("undone", 0), ("dropped", 0)] {
        let found: i64 = sqlx::query_scalar(count)
            .bind(value)
            .fetch_one(&mut *c)
            .await?;
        assert_eq!(found, wanted, "{value}");
    }
    let mut reading = c.begin_with("begin read only").await?;
    sqlx::query(count)
        .bind("kept")
        .fetch_one(&mut *reading)
        .await?;
    let written = sqlx::query("insert into x (v) values ('no')")
        .execute(&mut *reading)
        .await;
    refused(written, "25006")?;
    reading.rollback().await?;
    let gone = sqlx::query("delete from x where v = 'kept'")
        .execute(&mut *c)
        .await?;
    assert_eq!(gone.rows_affected(), 1);
    Ok(())
}

async fn kinds(pool: &PgPool) -> Done {
    println!("kinds");
    let mut c = pool.acquire().await?;
    c.execute(sqlx::raw_sql(
        "create type mood as enum ('sad', 'happy');
         create table kinds (i int, b bytea, j jsonb, a int[], s text[], m mood, o bool)",
    ))
    .await?;
    let insert = "insert into kinds values ($1, $2, $3, $4, $5, $6::text::mood, $7)";
    let json = serde_json::json!({"a": [1, null, "x"]});
    for round in 0..10_i32 {
        sqlx::query(insert)
            .bind(round)
            .bind(&b"\0\x01\xff'\\"[..])
            .bind(Json(&json))
            .bind(vec![Some(round), None, Some(-1)])
            .bind(vec!["a,b", "\"", ""])
            .bind("happy")
            .bind(round % 2 == 0)
            .execute(&mut *c)
            .await?;
    }
    sqlx::query(insert)
        .bind(None::<i32>)
        .bind(None::<Vec<u8>>)
        .bind(None::<Json<i32>>)
        .bind(None::<Vec<i32>>)
        .bind(None::<Vec<String>>)
        .bind(None::<&str>)
        .bind(None::<bool>)
        .execute(&mut *c)
        .await?;
    let all = "select i, b, j, a, s, m, o from kinds order by i nulls last";
    for (number, row) in (0..).zip(sqlx::query(all).fetch_all(&mut *c).await?) {
        if number == 10 {
            assert!(row.get::<Option<Vec<u8>>, _>(1).is_none());
            assert!(row.get::<Option<bool>, _>(6).is_none());
            continue;
        }
        assert_eq!(row.get::<i32, _>(0), number);
        assert_eq!(row.get::<Vec<u8>, _>(1), b"\0\x01\xff'\\");
        assert_eq!(row.get::<Json<serde_json::Value>, _>(2).0, json);
        assert_eq!(
            row.get::<Vec<Option<i32>>, _>(3),
            [Some(number), None, Some(-1)]
        );
        assert_eq!(row.get::<Vec<String>, _>(4), ["a,b", "\"", ""]);
        assert_eq!(row.try_get_unchecked::<String, _>(5)?, "happy");
        assert_eq!(row.get::<bool, _>(6), number % 2 == 0);
    }
    let among = "select count(*) from kinds where i = any($1)";
    let among: i64 = sqlx::query_scalar(among)
        .bind(vec![3, 5])
        .fetch_one(&mut *c)
        .await?;
    assert_eq!(among, 2);
    c.execute(sqlx::raw_sql("drop table kinds; drop type mood"))
        .await?;
    Ok(())
}

async fn large(pool: &PgPool) -> Done {
    println!("large");
    let bytes = noise(20 << 20);
    let mut c = pool.acquire().await?;
    c.execute("create table big (b bytea)").await?;
    sqlx::query("insert into big values ($1)")
        .bind(&bytes)
        .execute(&mut *c)
        .await?;
    let found: Vec<u8> = sqlx::query_scalar("select b from big")
        .fetch_one(&mut *c)
        .await?;
    assert!(found == bytes, "{} bytes", found.len());
    c.execute("drop table big").await?;
    Ok(())
}

async fn streams(pool: &PgPool) -> Done {
    println!("streams");
    let mut c = pool.acquire().await?;
    for round in 0..10_i32 {
        {
            let mut rows = sqlx::query("select generate_series(1, 20000)").fetch(&mut *c);
            let first = rows.try_next().await?.ok_or("no row")?;
            assert_eq!(first.get::<i32, _>(0), 1);
            // The rest is left to the connection.
        }
        let found: i32 = sqlx::query_scalar("select $1")
            .bind(round)
            .fetch_one(&mut *c)
            .await?;
        assert_eq!(found, round);
    }
    let mut transaction = c.begin().await?;
    transaction
        .execute("declare k cursor for select generate_series(1, 100)")
        .await?;
    let rows = transaction.fetch_all("fetch 30 from k").await?;
    assert_eq!(rows.len(), 30);
    transaction.commit().await?;
    Ok(())
}

async fn copies(pool: &PgPool) -> Done {
    println!("copies");
    pool.execute("create table if not exists ct (a int, b text)")
        .await?;
    let mut copy = pool.copy_in_raw("copy ct from stdin").await?;
    for number in 0..2000 {
        copy.send(format!("{number}\t{}\n", "x".repeat(500)).into_bytes())
            .await?;
    }
    assert_eq!(copy.finish().await?, 2000);
    let mut copy = pool.copy_in_raw("copy ct from stdin").await?;
    copy.send(&b"1\tgiven up\n"[..]).await?;
    copy.abort("the program gives up").await?;
    let mut copy = pool.copy_in_raw("copy ct from stdin").await?;
    copy.send(&b"no number\n"[..]).await?;
    refused(copy.finish().await, "22P02")?;
    let out = pool.copy_out_raw("copy ct (a) to stdout").await?;
    let text: Vec<u8> = out.map_ok(|part| part.to_vec()).try_concat().await?;
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 2000);
    pool.execute("drop table ct").await?;
    Ok(())
}

async fn notices(pool: &PgPool) -> Done {
    println!("notices");
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(["ch", "other"]).await?;
    for round in 0..5 {
        let payload = format!("message {round}");
        sqlx::query("select pg_notify('ch', $1)")
            .bind(&payload)
            .execute(pool)
            .await?;
        let heard = timeout(Duration::from_secs(5), listener.recv()).await??;
        assert_eq!(heard.payload(), payload);
    }
    listener.unlisten_all().await?;
    Ok(())
}

async fn timeouts(pool: &PgPool, place: &PgConnectOptions) -> Done {
    println!("timeouts");
    let quick = place.clone().options([("statement_timeout", "200")]);
    let mut c = PgConnection::connect_with(&quick).await?;
    for _ in 0..3 {
        refused(
            sqlx::query("select pg_sleep(20)").execute(&mut c).await,
            "57014",
        )?;
        assert_eq!(
            sqlx::query_scalar::<_, i32>("select 7")
                .fetch_one(&mut c)
                .await?,
            7
        );
    }
    c.close().await?;
    // A future that is dropped: its connection goes back to the pool and is drained there.
    for _ in 0..5 {
        let slow = sqlx::query("select pg_sleep(0.3)").execute(pool);
        assert!(timeout(Duration::from_millis(30), slow).await.is_err());
        assert_eq!(
            sqlx::query_scalar::<_, i32>("select 8")
                .fetch_one(pool)
                .await?,
            8
        );
    }
    Ok(())
}

async fn settings(pool: &PgPool, place: &PgConnectOptions) -> Done {
    println!("settings");
    let own = place
        .clone()
        .application_name("zork")
        .options([("work_mem", "6MB")]);
    let mut c = PgConnection::connect_with(&own).await?;
    let show = "select current_setting($1)";
    for _ in 0..10 {
        for (name, wanted) in [("application_name", "zork"), ("work_mem", "6MB")] {
            let found: String = sqlx::query_scalar(show)
                .bind(name)
                .fetch_one(&mut c)
                .await?;
            assert_eq!(found, wanted);
        }
        let other: String = sqlx::query_scalar(show)
            .bind("work_mem")
            .fetch_one(pool)
            .await?;
        assert_eq!(other, "4MB");
    }
    sqlx::query("set timezone = 'Asia/Tokyo'")
        .execute(&mut c)
        .await?;
    sqlx::query("create temp table mine as select 5 as a")
        .execute(&mut c)
        .await?;
    let found: String = sqlx::query_scalar(show)
        .bind("timezone")
        .fetch_one(&mut c)
        .await?;
    assert_eq!(found, "Asia/Tokyo");
    let mine = "select a from mine";
    assert_eq!(
        sqlx::query_scalar::<_, i32>(mine).fetch_one(&mut c).await?,
        5
    );
    refused(sqlx::query(mine).fetch_one(pool).await, "42P01")?;
    let lock = PgAdvisoryLock::new("a lock of the program");
    let guard = lock.acquire(&mut c).await?;
    let held = lock.try_acquire(pool.acquire().await?).await?;
    assert!(held.is_right(), "a lock was held twice");
    guard.release_now().await?;
    c.close().await?;
    Ok(())
}

async fn ends(pool: &PgPool, place: &PgConnectOptions) -> Done {
    println!("ends");
    let end = "select pg_terminate_backend(pg_backend_pid())";
    assert!(
        sqlx::query(end).execute(pool).await.is_err(),
        "its server lived on"
    );
    // The pool finds out by itself.
    assert_eq!(
        sqlx::query_scalar::<_, i32>("select 9")
            .fetch_one(pool)
            .await?,
        9
    );
    for _ in 0..10 {
        let mut c = PgConnection::connect_with(place).await?;
        let mut transaction = Connection::begin(&mut c).await?;
        sqlx::query("insert into x (v) values ('left')")
            .execute(&mut *transaction)
            .await?;
        let slow = sqlx::query("select pg_sleep(1)").execute(&mut *transaction);
        assert!(timeout(Duration::from_millis(20), slow).await.is_err());
        std::mem::forget(transaction);
    }
    let left = "select count(*) from x where v = 'left'";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(pool).await?, 0);
    Ok(())
}

async fn many(pool: &PgPool) -> Done {
    println!("many");
    try_join_all((0..40_i32).map(|own| async move {
        for round in 0..20 {
            let wanted = own * 1000 + round;
            let found: i32 = sqlx::query_scalar("select $1")
                .bind(wanted)
                .fetch_one(pool)
                .await?;
            assert_eq!(found, wanted);
        }
        Ok::<(), Error>(())
    }))
    .await?;
    Ok(())
}
