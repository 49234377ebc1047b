SELECT 1
select 1;
SELECT 1 ; 
SELECT 1 -- x
SELECT 1 # x
/* c */ SELECT /* d */ 1
SELECT * FROM orders
SELECT * FROM shop.orders
SELECT * FROM `shop`.`orders`
SELECT * FROM `orders` WHERE `id` = 'a'
SELECT * FROM other.things t WHERE t.id IN (1, 2, 3)
SELECT o.id, i.name FROM orders o JOIN items i ON i.order_id = o.id WHERE o.id = 7
SELECT o.id FROM orders o LEFT JOIN items i USING (id) ORDER BY o.id DESC LIMIT 10
SELECT id FROM orders LIMIT 5, 10
SELECT id FROM orders LIMIT ? OFFSET ?
SELECT count(*) FROM orders
SELECT COUNT( DISTINCT id ) FROM orders GROUP BY name HAVING COUNT(*) > 1
SELECT id FROM orders UNION SELECT id FROM items
(SELECT id FROM orders) UNION ALL (SELECT id FROM items) ORDER BY 1
WITH c AS (SELECT id FROM orders) SELECT * FROM c
WITH c (a, b) AS (SELECT id, name FROM orders), d (x) AS (SELECT a FROM c) SELECT * FROM d
WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n
SELECT * FROM (SELECT id FROM orders) AS t
SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM items WHERE items.id = orders.id)
SELECT id FROM orders WHERE id = (SELECT MAX(id) FROM items)
SELECT CASE WHEN id > 3 THEN 'a' ELSE 'b' END FROM orders
SELECT IF(id > 3, 'a', 'b'), IFNULL(name, ''), COALESCE(name, id) FROM orders
SELECT CAST(id AS CHAR(10)), CONVERT(name USING utf8mb4) FROM orders
SELECT CONCAT(name, '-', id) FROM orders WHERE name LIKE 'a%'
SELECT GROUP_CONCAT(name ORDER BY id SEPARATOR ', ') FROM orders
SELECT name FROM orders WHERE name REGEXP '^a' AND NOT id <=> NULL
SELECT name FROM orders WHERE name BETWEEN 'a' AND 'b' OR id IS NOT NULL
SELECT 'it''s', 'a\' FOR UPDATE', "x; DROP TABLE y"
SELECT _utf8mb4'x', N'y', x'1f', 0x1F, b'01', 0b01, 1.5e3, .5, 1., \N
SELECT 'a' 'b' 'c'
SELECT id FROM orders WHERE created > NOW() - INTERVAL 1 DAY
SELECT DATE_FORMAT(created, '%Y') FROM orders
SELECT YEAR(created), EXTRACT(YEAR FROM created) FROM orders
SELECT SUBSTRING(name FROM 1 FOR 2), TRIM(LEADING 'x' FROM name) FROM orders
SELECT ROW_NUMBER() OVER (PARTITION BY name ORDER BY id) FROM orders
SELECT JSON_EXTRACT(data, '$.a') FROM orders
SELECT data->'$.a', data->>'$.b' FROM orders
SELECT id FROM orders USE INDEX (PRIMARY) WHERE id = 1
SELECT id FROM orders FORCE INDEX (a, b) WHERE id = 1
SELECT SQL_NO_CACHE id FROM orders
SELECT SQL_CALC_FOUND_ROWS id FROM orders LIMIT 3
SELECT STRAIGHT_JOIN o.id FROM orders o, items i
SELECT DISTINCT name FROM orders
SELECT /*+ NO_INDEX_MERGE(orders) */ id FROM orders
SELECT DATABASE(), SCHEMA(), VERSION()
SELECT @@session.time_zone, @@sql_mode
SELECT @@character_set_client
SELECT id AS `into`, name AS `for update` FROM orders
SELECT o.`for`, o.lock FROM orders o
SELECT 1 FROM DUAL
SELECT MATCH (name) AGAINST ('x' IN BOOLEAN MODE) FROM orders
SELECT BINARY name FROM orders
SELECT id DIV 2, id MOD 2, id % 2, id & 1, id | 1, id ^ 1, ~id, id << 1 FROM orders
SELECT id FROM orders WHERE !(id = 1) XOR TRUE
SELECT id FROM orders WHERE (id, name) IN ((1, 'a'), (2, 'b'))
SELECT 5 - -3, 5--3
TABLE orders
TABLE shop.orders
EXPLAIN SELECT id FROM orders
DESC SELECT id FROM orders
EXPLAIN FORMAT=JSON SELECT id FROM orders
EXPLAIN EXTENDED SELECT id FROM orders
SELECT * FROM good_view
SELECT * FROM view_of_view
SELECT * FROM clock_view
SELECT * FROM history
SELECT id FROM orders o WHERE o.name COLLATE utf8mb4_bin = 'x'
SELECT RAND(), UUID(), MD5('x')
SELECT id FROM orders WHERE id = ? AND name = ?
SELECT id FROM orders NATURAL JOIN items
SELECT id FROM orders CROSS JOIN items
SELECT id FROM orders GROUP BY id WITH ROLLUP
SELECT LAST_DAY(created), now(6), current_timestamp FROM orders
