#!/bin/sh
# The mariadb program and mariadb-dump as administrators use them; prints what they print.
set -eu
port=$1 database=$2
export MYSQL_PWD=secret
at="--no-defaults --protocol=tcp -h 127.0.0.1 -P $port -u breccia --default-character-set=utf8mb4"
run() { mariadb $at "$@" "$database" 2>&1; }

run -t <<'SQL'
drop table if exists c;
create table c (id int auto_increment primary key, v varchar(20)) default charset utf8mb4;
insert into c (v) values ('a'), ('ü'), (null), ('名前');
select * from c;
select last_insert_id();
delimiter //
drop procedure if exists cp //
create procedure cp() begin select 1; select 2; end //
delimiter ;
call cp();
start transaction;
insert into c (v) values ('gone');
rollback;
set @x = 3;
select @x, count(*) from c;
show create table c;
describe c;
show warnings;
explain select v from c where id = 1;
SQL
run -vv --show-warnings -e "select 1/0; insert into c (id, v) values (1, 'x') on duplicate key update v = 'x'; update c set v = v;"
run -N --quick -e "select count(*), sum(seq) from (select seq from seq_1_to_10000) s"
run --batch --force -e "select nothing; select 1; selec 2; select 3;" || echo "ended with $?"
run -X -e "select 1 as a, null as b"
run --binary-as-hex -e "select x'00ff'"
mariadb-dump --no-defaults --protocol=tcp -h 127.0.0.1 -P "$port" -u breccia --skip-comments \
    --single-transaction --default-character-set=utf8mb4 "$database" c 2>&1
mariadb-admin --no-defaults --protocol=tcp -h 127.0.0.1 -P "$port" -u breccia ping 2>&1
echo "all good"
