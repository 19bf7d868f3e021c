-- What MySQL alone knows.
CREATE TABLE my (id int NOT NULL PRIMARY KEY, js json, k json, v vector(3), inv int INVISIBLE DEFAULT 7, un int unsigned);
INSERT INTO my (id, js, k, v, un) VALUES
(1, '{"a": 1, "bb": [1, 2.50, null, true, "x\\"y"], "c": {"d": -1, "e": 18446744073709551615, "f": 1e100, "g": 70000, "h": -70000}}', '[]',
  TO_VECTOR('[1,2.5,-3]'), 1),
(2, JSON_OBJECT('dec', CAST(12345678901234567890.5 AS DECIMAL(30,1)), 'dt', CAST('2024-01-02 03:04:05.678' AS DATETIME(3)),
  'd', CAST('2024-01-02' AS DATE), 't', CAST('-10:00:00' AS TIME), 'bin', CAST(0x00FF AS BINARY)), '"text"', NULL, 2),
(3, NULL, 'null', NULL, 3),
(4, JSON_OBJECT('long', REPEAT('x', 65600), 'n', 70000, 'a', JSON_ARRAY(1, -2)), NULL, NULL, 4);
UPDATE my SET js = JSON_SET(js, '$.long', REPEAT('ä', 100)) WHERE id = 1;
SET binlog_row_value_options = PARTIAL_JSON;
UPDATE my SET js = JSON_SET(js, '$.a', 10, '$.bb[1]', 'two'), k = JSON_ARRAY(1) WHERE id = 1;
UPDATE my SET js = JSON_REMOVE(js, '$.c', '$.long') WHERE id = 1;
UPDATE my SET js = JSON_REPLACE(js, '$.a', 11), un = 7 WHERE id = 1;
SET binlog_row_image = MINIMAL;
UPDATE my SET js = JSON_REPLACE(js, '$.a', 12) WHERE id = 1;
SET binlog_row_image = FULL, binlog_row_value_options = '';
SET binlog_transaction_compression = ON;
BEGIN;
INSERT INTO two VALUES ('zstd', 50, NULL, 50);
UPDATE two SET bb = 'zstd2' WHERE c = 50;
COMMIT;
SET binlog_transaction_compression = OFF;
SET gtid_next = 'AUTOMATIC:mytag';
INSERT INTO two VALUES ('tag', 60, NULL, 60);
SET gtid_next = AUTOMATIC;
CREATE TABLE copied (PRIMARY KEY (id)) SELECT id, js FROM my;
SET binlog_format = STATEMENT;
INSERT INTO two VALUES ('s', 100, NULL, 100);
