-- A shop, a role for feedline with no more than it needs, and a procedure that keeps the shop busy.
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    status text NOT NULL DEFAULT 'new',
    total numeric(10, 2) NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO orders (customer, total) SELECT 'customer ' || n, n FROM generate_series(1, 1000) AS n;

CREATE ROLE feedline LOGIN REPLICATION PASSWORD 'feedline';
GRANT SELECT ON orders TO feedline;
-- Each pipeline reads a slot and a publication of its own; the publications are made here, so that feedline owns nothing.
CREATE PUBLICATION feedline_shop FOR TABLE orders;
CREATE PUBLICATION feedline_shop_rabbitmq FOR TABLE orders;

CREATE PROCEDURE shop() LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        INSERT INTO orders (customer, total) VALUES ('customer ' || floor(random() * 1000), random() * 100);
        UPDATE orders SET status = 'paid' WHERE id = (SELECT id FROM orders WHERE status = 'new' ORDER BY id LIMIT 1);
        DELETE FROM orders WHERE id = (SELECT min(id) FROM orders) AND random() < 0.2;
        COMMIT;
        PERFORM pg_sleep(0.3);
    END LOOP;
END
$$;
