-- A shop, a user for feedline with no more than it needs, and an event that keeps the shop busy.
CREATE TABLE orders (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    customer varchar(100) NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'new',
    total decimal(10, 2) NOT NULL,
    placed_at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
);
INSERT INTO orders (customer, total) SELECT CONCAT('customer ', seq), seq FROM seq_1_to_1000;

CREATE USER feedline@'%' IDENTIFIED BY 'feedline';
GRANT REPLICATION SLAVE, BINLOG MONITOR, PROCESS ON *.* TO feedline@'%';
GRANT SELECT ON orders TO feedline@'%';

DELIMITER //
CREATE EVENT shop ON SCHEDULE EVERY 1 SECOND DO
BEGIN
    INSERT INTO orders (customer, total) VALUES (CONCAT('customer ', FLOOR(RAND() * 1000)), RAND() * 100);
    UPDATE orders SET status = 'paid' WHERE status = 'new' ORDER BY id LIMIT 1;
    DELETE FROM orders WHERE RAND() < 0.2 ORDER BY id LIMIT 1;
END//
DELIMITER ;
