//! tokio-postgres: prepared statements, pipelines, portals, COPY, notifications, cancels.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{
    AsyncMessage, Client, Config, Error, IsolationLevel, NoTls, SimpleQueryMessage,
};

use crate::{Done, noise};

#[derive(Clone)]
struct Place(Config);

impl Place {
    /// A client, and what its server says without being asked.
    async fn connect(&self) -> Result<(Client, UnboundedReceiver<AsyncMessage>), Error> {
        let (client, mut connection) = self.0.connect(NoTls).await?;
        let (sender, heard) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|turn| connection.poll_message(turn)).await {
                let _nobody_listens = sender.send(message);
            }
        });
        Ok((client, heard))
    }

    async fn client(&self) -> Result<Client, Error> {
        Ok(self.connect().await?.0)
    }
}

fn refused<T>(outcome: Result<T, Error>, state: &SqlState) -> Done {
    match outcome {
        Ok(_) => Err(format!("no error {}", state.code()).into()),
        Err(error) if error.code() == Some(state) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub async fn all(port: u16, database: &str) -> Done {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user("breccia")
        .password("secret")
        .dbname(database);
    let place = Place(config);
    basics(&place).await?;
    pipelines(&place).await?;
    transactions(&place).await?;
    kinds(&place).await?;
    large(&place).await?;
    portals(&place).await?;
    copies(&place).await?;
    notices(&place).await?;
    cancels(&place).await?;
    settings(&place).await?;
    ends(&place).await?;
    many(&place).await
}

async fn basics(place: &Place) -> Done {
    println!("basics");
    let c = place.client().await?;
    c.batch_execute("create table if not exists x (id serial primary key, v text)")
        .await?;
    let insert = c
        .prepare("insert into x (v) values ($1) returning id")
        .await?;
    let select = c.prepare("select v from x where id = $1").await?;
    for round in 0..40 {
        let value = format!("t{round}");
        let id: i32 = c.query_one(&insert, &[&value]).await?.get(0);
        assert_eq!(
            c.query_one(&select, &[&id]).await?.get::<_, String>(0),
            value
        );
        let again = c
            .query_one("select v || $2 from x where id = $1", &[&id, &"!"])
            .await?;
        assert_eq!(again.get::<_, String>(0), format!("{value}!"));
    }
    // Dropped statements are closed in between.
    for round in 0..20_i32 {
        let statement = c.prepare_typed("select $1 + 1", &[Type::INT4]).await?;
        assert_eq!(
            c.query_one(&statement, &[&round]).await?.get::<_, i32>(0),
            round + 1
        );
    }
    let both = c.simple_query("select 1 as a; select 'two' as b").await?;
    let values: Vec<&str> = both
        .iter()
        .filter_map(|it| match it {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    assert_eq!(values, ["1", "two"]);
    assert_eq!(
        c.execute("update x set v = v where v like 't%'", &[])
            .await?,
        40
    );
    assert!(
        c.query_opt("select 1 from x where v = 'nothing'", &[])
            .await?
            .is_none()
    );
    Ok(())
}

async fn pipelines(place: &Place) -> Done {
    println!("pipelines");
    let c = place.client().await?;
    let (write, read) = (
        c.prepare("insert into x (v) values ($1)").await?,
        c.prepare("select count(*) from x where v = $1").await?,
    );
    // Each future is a batch of its own; all are under way at the same time.
    let values: Vec<String> = (0..100).map(|it| format!("pipe{it}")).collect();
    try_join_all(values.iter().map(|value| async {
        let parameter: [&(dyn ToSql + Sync); 1] = [value];
        let (written, counted) = tokio::join!(
            c.execute(&write, &parameter),
            c.query_one(&read, &parameter)
        );
        assert_eq!(written?, 1);
        assert_eq!(counted?.get::<_, i64>(0), 1, "its own write");
        Ok::<(), Error>(())
    }))
    .await?;
    let parameters: Vec<i32> = (0..50).collect();
    let answers = join_all(parameters.iter().map(|it| {
        let c = &c;
        async move { c.query_one("select 100 / $1::int", &[it]).await }
    }));
    for (number, answer) in (0..).zip(answers.await) {
        match number {
            0 => refused(answer, &SqlState::DIVISION_BY_ZERO)?,
            _ => assert_eq!(answer?.get::<_, i32>(0), 100 / number),
        }
    }
    Ok(())
}

async fn transactions(place: &Place) -> Done {
    println!("transactions");
    let mut c = place.client().await?;
    let mut transaction = c.transaction().await?;
    transaction
        .execute("insert into x (v) values ('kept')", &[])
        .await?;
    for _ in 0..10 {
        let savepoint = transaction.transaction().await?;
        savepoint
            .execute("insert into x (v) values ('undone')", &[])
            .await?;
        refused(
            savepoint.query("select 1 / 0", &[]).await,
            &SqlState::DIVISION_BY_ZERO,
        )?;
        refused(
            savepoint.query("select 1", &[]).await,
            &SqlState::IN_FAILED_SQL_TRANSACTION,
        )?;
        savepoint.rollback().await?;
    }
    transaction.commit().await?;
    let count = "select count(*) from x where v = $1";
    for (value, wanted) in [("kept", 1), ("undone", 0)] {
        assert_eq!(
            c.query_one(count, &[&value]).await?.get::<_, i64>(0),
            wanted
        );
    }
    // Dropped without an end.
    let dropped = c.transaction().await?;
    dropped
        .execute("insert into x (v) values ('dropped')", &[])
        .await?;
    drop(dropped);
    assert_eq!(c.query_one(count, &[&"dropped"]).await?.get::<_, i64>(0), 0);
    for isolation in [IsolationLevel::ReadCommitted, IsolationLevel::Serializable] {
        let builder = c
            .build_transaction()
            .isolation_level(isolation)
            .read_only(true);
        let reading = builder.start().await?;
        assert_eq!(
            reading.query_one(count, &[&"kept"]).await?.get::<_, i64>(0),
            1
        );
        let written = reading
            .execute("insert into x (v) values ('no')", &[])
            .await;
        refused(written, &SqlState::READ_ONLY_SQL_TRANSACTION)?;
        reading.rollback().await?;
    }
    Ok(c.batch_execute("delete from x where v = 'kept'").await?)
}

async fn kinds(place: &Place) -> Done {
    println!("kinds");
    let c = place.client().await?;
    c.batch_execute(
        "create type mood as enum ('sad', 'happy');
         create table kinds (i int, b bytea, j jsonb, a int[], s text[], m mood, o bool)",
    )
    .await?;
    let insert = "insert into kinds values ($1, $2, $3, $4, $5, $6::text::mood, $7)";
    let json = serde_json::json!({"a": [1, null, "x"]});
    for round in 0..10_i32 {
        let values: [&(dyn ToSql + Sync); 7] = [
            &round,
            &&b"\0\x01\xff'\\"[..],
            &Json(&json),
            &vec![Some(round), None, Some(-1)],
            &vec!["a,b", "\"", ""],
            &"happy",
            &(round % 2 == 0),
        ];
        c.execute(insert, &values).await?;
    }
    let nothing: [&(dyn ToSql + Sync); 7] = [
        &None::<i32>,
        &None::<Vec<u8>>,
        &None::<Json<i32>>,
        &None::<Vec<i32>>,
        &None::<Vec<String>>,
        &None::<&str>,
        &None::<bool>,
    ];
    c.execute(insert, &nothing).await?;
    // The type of the column `m` is looked up with statements of the client's own.
    for row in c
        .query("select * from kinds where i is not null order by i", &[])
        .await?
    {
        let number: i32 = row.get(0);
        assert_eq!(row.get::<_, Vec<u8>>(1), b"\0\x01\xff'\\");
        assert_eq!(row.get::<_, Json<serde_json::Value>>(2).0, json);
        assert_eq!(
            row.get::<_, Vec<Option<i32>>>(3),
            [Some(number), None, Some(-1)]
        );
        assert_eq!(row.get::<_, Vec<String>>(4), ["a,b", "\"", ""]);
        assert_eq!(row.columns()[5].type_().name(), "mood");
        assert_eq!(row.get::<_, bool>(6), number % 2 == 0);
    }
    let row = c
        .query_one("select * from kinds where i is null", &[])
        .await?;
    assert!(row.get::<_, Option<Vec<u8>>>(1).is_none() && row.get::<_, Option<bool>>(6).is_none());
    let among = c
        .query_one(
            "select count(*) from kinds where i = any($1)",
            &[&vec![3, 5]],
        )
        .await?;
    assert_eq!(among.get::<_, i64>(0), 2);
    Ok(c.batch_execute("drop table kinds; drop type mood").await?)
}

async fn large(place: &Place) -> Done {
    println!("large");
    let c = place.client().await?;
    let bytes = noise(20 << 20);
    c.batch_execute("create table big (b bytea)").await?;
    c.execute("insert into big values ($1)", &[&bytes]).await?;
    assert_eq!(
        c.query_one("select b from big", &[])
            .await?
            .get::<_, Vec<u8>>(0),
        bytes
    );
    let sent = c.query_one("select $1::bytea", &[&bytes]).await?;
    assert_eq!(sent.get::<_, Vec<u8>>(0), bytes);
    Ok(c.batch_execute("drop table big").await?)
}

async fn portals(place: &Place) -> Done {
    println!("portals");
    let mut c = place.client().await?;
    let transaction = c.transaction().await?;
    let portal = transaction
        .bind("select generate_series(1, $1::int)", &[&5000])
        .await?;
    let mut sum = 0;
    loop {
        let rows = transaction.query_portal(&portal, 70).await?;
        if rows.is_empty() {
            break;
        }
        sum += rows
            .iter()
            .map(|row| i64::from(row.get::<_, i32>(0)))
            .sum::<i64>();
        transaction.query_one("select 1", &[]).await?;
    }
    assert_eq!(sum, 5000 * 5001 / 2);
    transaction.commit().await?;
    // A stream of rows that is left in the middle.
    for round in 0..10 {
        let none: [&(dyn ToSql + Sync); 0] = [];
        let stream = c
            .query_raw("select generate_series(1, 20000)", none)
            .await?;
        let first = pin!(stream).next().await.ok_or("no row")??;
        assert_eq!(first.get::<_, i32>(0), 1);
        assert_eq!(
            c.query_one("select $1::int", &[&round])
                .await?
                .get::<_, i32>(0),
            round
        );
    }
    Ok(())
}

async fn copies(place: &Place) -> Done {
    println!("copies");
    let mut c = place.client().await?;
    c.batch_execute("create temp table ct (a int, b text)")
        .await?;
    let mut sink = Box::pin(c.copy_in("copy ct from stdin").await?);
    for number in 0..2000 {
        let line = format!("{number}\t{}\n", "x".repeat(500));
        sink.send(std::io::Cursor::new(line.into_bytes())).await?;
    }
    assert_eq!(sink.as_mut().finish().await?, 2000);
    let sink = c.copy_in("copy ct from stdin (format binary)").await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]));
    for number in 2000..4000_i32 {
        writer.as_mut().write(&[&number, &"y"]).await?;
    }
    assert_eq!(writer.finish().await?, 2000);
    let stream = c.copy_out("copy ct (a) to stdout (format binary)").await?;
    let rows = BinaryCopyOutStream::new(stream, &[Type::INT4]);
    let numbers: Vec<i32> = pin!(rows)
        .map_ok(|row| row.get::<i32>(0))
        .try_collect()
        .await?;
    assert_eq!(numbers.len(), 4000);
    // One that is given up, and one with an error.
    let transaction = c.transaction().await?;
    let sink: tokio_postgres::CopyInSink<std::io::Cursor<Vec<u8>>> =
        transaction.copy_in("copy ct from stdin").await?;
    drop(sink);
    transaction.rollback().await?;
    let mut sink = Box::pin(c.copy_in("copy ct from stdin").await?);
    sink.send(std::io::Cursor::new(b"no number\n".to_vec()))
        .await?;
    refused(
        sink.as_mut().finish().await,
        &SqlState::INVALID_TEXT_REPRESENTATION,
    )?;
    assert_eq!(
        c.query_one("select count(*) from ct", &[])
            .await?
            .get::<_, i64>(0),
        4000
    );
    Ok(())
}

async fn notices(place: &Place) -> Done {
    println!("notices");
    let (listener, mut heard) = place.connect().await?;
    let speaker = place.client().await?;
    listener.batch_execute("listen ch").await?;
    for round in 0..5 {
        let payload = format!("message {round}");
        speaker
            .execute("select pg_notify('ch', $1)", &[&payload])
            .await?;
        match timeout(Duration::from_secs(5), heard.recv()).await? {
            Some(AsyncMessage::Notification(found)) => assert_eq!(found.payload(), payload),
            other => return Err(format!("{other:?}, no notification").into()),
        }
    }
    listener
        .batch_execute("do $$ begin raise notice 'look here'; end $$")
        .await?;
    match timeout(Duration::from_secs(5), heard.recv()).await? {
        Some(AsyncMessage::Notice(found)) => assert_eq!(found.message(), "look here"),
        other => return Err(format!("{other:?}, no notice").into()),
    }
    Ok(())
}

async fn cancels(place: &Place) -> Done {
    println!("cancels");
    let c = place.client().await?;
    for sql in [
        "select pg_sleep(20)::text",
        "select count(*)::text from generate_series(1, 1000000000)",
    ] {
        let token = c.cancel_token();
        let both = async {
            tokio::join!(c.query(sql, &[]), async {
                sleep(Duration::from_millis(300)).await;
                token.cancel_query(NoTls).await
            })
        };
        let (asked, told) = timeout(Duration::from_secs(5), both).await?;
        told?;
        refused(asked, &SqlState::QUERY_CANCELED)?;
        assert_eq!(c.query_one("select 7", &[]).await?.get::<_, i32>(0), 7);
    }
    // A program that waits no longer; the connection answers what it asks next, later.
    let slow = timeout(
        Duration::from_millis(100),
        c.query("select pg_sleep(0.5)", &[]),
    )
    .await;
    assert!(slow.is_err(), "it was quick");
    assert_eq!(c.query_one("select 8", &[]).await?.get::<_, i32>(0), 8);
    c.batch_execute("set statement_timeout = 100").await?;
    refused(
        c.query("select pg_sleep(20)", &[]).await,
        &SqlState::QUERY_CANCELED,
    )?;
    assert_eq!(c.query_one("select 9", &[]).await?.get::<_, i32>(0), 9);
    Ok(())
}

async fn shown(client: &Client, name: &str) -> Result<String, Error> {
    Ok(client
        .query_one("select current_setting($1)", &[&name])
        .await?
        .get(0))
}

async fn settings(place: &Place) -> Done {
    println!("settings");
    let mut own = place.clone();
    own.0.application_name("zork").options("-c work_mem=6MB");
    let (c, other) = (own.client().await?, place.client().await?);
    for _ in 0..10 {
        assert_eq!(shown(&c, "application_name").await?, "zork");
        assert_eq!(shown(&c, "work_mem").await?, "6MB");
        assert_eq!(shown(&other, "work_mem").await?, "4MB");
    }
    c.batch_execute("set timezone = 'Asia/Tokyo'; create temp table mine as select 5 as a")
        .await?;
    assert_eq!(shown(&c, "timezone").await?, "Asia/Tokyo");
    assert_eq!(
        c.query_one("select a from mine", &[])
            .await?
            .get::<_, i32>(0),
        5
    );
    refused(
        other.query("select a from mine", &[]).await,
        &SqlState::UNDEFINED_TABLE,
    )?;
    let lock = "select pg_try_advisory_lock(77)";
    assert!(c.query_one(lock, &[]).await?.get::<_, bool>(0));
    assert!(!other.query_one(lock, &[]).await?.get::<_, bool>(0));
    assert!(
        c.query_one("select pg_advisory_unlock(77)", &[])
            .await?
            .get::<_, bool>(0)
    );
    c.batch_execute("discard all").await?;
    assert_eq!(shown(&c, "work_mem").await?, "6MB");
    Ok(())
}

async fn ends(place: &Place) -> Done {
    println!("ends");
    let c = place.client().await?;
    let ended = c
        .query("select pg_terminate_backend(pg_backend_pid())", &[])
        .await;
    let code = ended.err().and_then(|error| error.code().cloned());
    assert!(code.is_none_or(|code| code == SqlState::ADMIN_SHUTDOWN));
    for round in 0..10 {
        let mut c = place.client().await?;
        let transaction = c.transaction().await?;
        transaction
            .execute("insert into x (v) values ('left')", &[])
            .await?;
        let portal = transaction
            .bind("select generate_series(1, 100000)", &[])
            .await?;
        if round % 2 == 0 {
            assert_eq!(transaction.query_portal(&portal, 3).await?.len(), 3);
        } else {
            let waits = transaction.query("select pg_sleep(1)", &[]);
            assert!(timeout(Duration::from_millis(20), waits).await.is_err());
        }
        std::mem::forget(transaction);
    }
    let c = place.client().await?;
    let left = c
        .query_one("select count(*) from x where v = 'left'", &[])
        .await?;
    assert_eq!(left.get::<_, i64>(0), 0);
    Ok(())
}

async fn many(place: &Place) -> Done {
    println!("many");
    try_join_all((0..16_i32).map(|own| async move {
        let c = place.client().await?;
        let statement = c.prepare("select $1::int").await?;
        for round in 0..60 {
            let wanted = own * 1000 + round;
            assert_eq!(
                c.query_one(&statement, &[&wanted]).await?.get::<_, i32>(0),
                wanted
            );
        }
        Ok::<(), Error>(())
    }))
    .await?;
    Ok(())
}
