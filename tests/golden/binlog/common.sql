-- What both products know. Runs in an empty database.
CREATE TABLE types (
  id bigint unsigned NOT NULL PRIMARY KEY,
  ti tinyint, tiu tinyint unsigned, si smallint, siu smallint unsigned, mi mediumint, miu mediumint unsigned, i int, iu int unsigned,
  bi bigint, biu bigint unsigned, b1 bit(1), b12 bit(12), b64 bit(64), bo boolean, f float, d double,
  de decimal(30,10), de0 decimal(5,0), deu decimal(65,30) unsigned,
  dt date, t0 time, t6 time(6), dtm datetime, dtm3 datetime(3), dtm6 datetime(6), ts timestamp NULL, ts5 timestamp(5) NULL, y year,
  c char(10), cl char(10) CHARACTER SET latin1, clong char(255) CHARACTER SET utf8mb4, vc varchar(300), vcl varchar(50) CHARACTER SET latin1,
  bin binary(8), vb varbinary(300), tb tinyblob, bl blob, mb mediumblob, lb longblob, tt tinytext, tx text,
  mt mediumtext CHARACTER SET latin2, lt longtext CHARACTER SET utf16,
  en enum('a','b','ü'), enl enum('x','é') CHARACTER SET latin1, se set('p','q','r','s'), sel set('ä','ö') CHARACTER SET latin1,
  g geometry, pt point, gen int AS (i + 1) VIRTUAL, gens int AS (i + 2) STORED
) CHARACTER SET utf8mb4;
INSERT INTO types (id,ti,tiu,si,siu,mi,miu,i,iu,bi,biu,b1,b12,b64,bo,f,d,de,de0,deu,dt,t0,t6,dtm,dtm3,dtm6,ts,ts5,y,c,cl,clong,vc,vcl,bin,vb,tb,bl,
  mb,lb,tt,tx,mt,lt,en,enl,se,sel,g,pt) VALUES
(1,-128,255,-32768,65535,-8388608,16777215,-2147483648,4294967295,-9223372036854775808,18446744073709551615,b'1',b'101010101010',
  0xFFFFFFFFFFFFFFFF,true,1.5,2.2250738585072014e-308,-12345678901234567890.0123456789,-99999,
  12345678901234567890123456789012345.123456789012345678901234567890,'2024-02-29','-838:59:59','-01:02:03.000004','2024-02-29 23:59:59',
  '2024-02-29 23:59:59.123','2024-02-29 23:59:59.123456','2024-02-29 23:59:59','2024-02-29 23:59:59.12345',2155,'abc','é','日本語','größe','naïve',
  0x0102000000000000,0x00ff,0x01,0x02,0x03,0x04,'tiny','text','łódź','UTF16 ∑','ü','é','p,r,s','ä,ö',
  ST_GeomFromText('POINT(1 2)'),ST_GeomFromText('POINT(3 4)')),
(2,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,
  NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
SET sql_mode = '';
INSERT INTO types (id,dt,dtm,dtm6,ts,y,en,de,t6,t0) VALUES
(3,'0000-00-00','0000-00-00','0000-00-00','0000-00-00',0,'zzz',-0.5,'00:00:00.5','00:00:01'),
(4,'2024-00-00','2024-00-15 00:00:00','1000-01-01 00:00:00.000001','1970-01-01 00:00:01',1901,'a',0.5,'838:59:58.999999','100:00:00');
SET sql_mode = DEFAULT;
INSERT INTO types (id,f,d,si,mi,bi) VALUES (5,-3.4e38,1.7976931348623157e308,-1,-1,-1),(6,0.1,-0.1,1,1,1),(7,1e-38,0,0,8388607,0);
UPDATE types SET i = 5, vc = 'upd' WHERE id = 1;
SET binlog_row_image = MINIMAL;
UPDATE types SET vc = NULL, tx = 'changed' WHERE id = 1;
UPDATE types SET id = 20 WHERE id = 2;
DELETE FROM types WHERE id = 3;
SET binlog_row_image = NOBLOB;
UPDATE types SET i = 6 WHERE id = 1;
DELETE FROM types WHERE id = 4;
SET binlog_row_image = FULL;
CREATE TABLE keyless (a int, b varchar(10));
INSERT INTO keyless VALUES (1, 'x'), (NULL, NULL);
CREATE TABLE two (b varchar(10) CHARACTER SET latin1, a int, c int, PRIMARY KEY (c, a));
BEGIN;
INSERT INTO two VALUES ('é', 1, 2);
SAVEPOINT s;
INSERT INTO two VALUES ('undone', 3, 4);
ROLLBACK TO SAVEPOINT s;
UPDATE two SET a = 9;
COMMIT;
ALTER TABLE two ADD COLUMN d date AFTER a, RENAME COLUMN b TO bb;
INSERT INTO two VALUES ('z', 5, '2024-01-02', 6);
TRUNCATE TABLE keyless;
RENAME TABLE keyless TO renamed;
DROP TABLE renamed;
XA START 'xa', 'branch', 7;
INSERT INTO two VALUES ('xa', 7, NULL, 7);
XA END 'xa', 'branch', 7;
XA PREPARE 'xa', 'branch', 7;
XA COMMIT 'xa', 'branch', 7;
