-- What MariaDB alone knows.
CREATE TABLE maria (
  id int NOT NULL PRIMARY KEY, u uuid, ip6 inet6, ip4 inet4, js json, vcc varchar(300) COMPRESSED, blc blob COMPRESSED,
  txc text CHARACTER SET latin1 COMPRESSED, inv int INVISIBLE DEFAULT 7
) CHARACTER SET utf8mb4;
INSERT INTO maria (id,u,ip6,ip4,js,vcc,blc,txc) VALUES
(1,'123e4567-e89b-12d3-a456-426655440000','2001:db8::ff00:42:8329','192.168.1.2','{"a":1,"b":[1,2.50,null,true,"x"]}',REPEAT('ä',140),
  REPEAT(0x00ff,200),REPEAT('é',200)),
(2,'00000000-0000-0000-0000-000000000000','::','0.0.0.0','[]','','','short'),
(3,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE aria (id int PRIMARY KEY, t text) ENGINE = Aria;
INSERT INTO aria VALUES (1, 'not transactional');
CREATE TABLE copied (PRIMARY KEY (id)) SELECT id, js FROM maria;
SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10;
INSERT INTO two VALUES (REPEAT('c', 10), 70, '2024-02-02', 70), (REPEAT('c', 10), 71, '2024-02-02', 71), (REPEAT('c', 10), 72, '2024-02-02', 72);
UPDATE two SET bb = REPEAT('d', 10) WHERE c >= 70;
DELETE FROM two WHERE c >= 70;
CREATE TABLE a_statement_that_is_long_enough_to_be_compressed (id int PRIMARY KEY COMMENT 'compressed compressed compressed');
SET GLOBAL log_bin_compress = OFF;
SET binlog_format = STATEMENT;
INSERT INTO two VALUES ('s', 100, NULL, 100);
