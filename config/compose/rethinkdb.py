"""Makes a shop and a user for feedline with no more than it needs, and keeps the shop busy."""

import random
import time

from rethinkdb import r

c = r.connect("rethinkdb")
if "shop" not in r.db_list().run(c):
    r.db_create("shop").run(c)
    r.db("shop").table_create("orders").run(c)
    r.db("shop").table("orders").insert([{"id": n, "customer": f"customer {n}", "status": "new", "total": n} for n in range(1000)]).run(c)
    r.db("rethinkdb").table("users").insert({"id": "feedline", "password": "feedline"}).run(c)
    r.db("shop").grant("feedline", {"read": True}).run(c)
    print("the shop is made", flush=True)
orders = r.db("shop").table("orders")
while True:
    orders.insert({"customer": f"customer {random.randrange(1000)}", "status": "new", "total": random.randrange(100)}).run(c)
    orders.filter({"status": "new"}).limit(1).update({"status": "paid"}).run(c)
    if random.random() < 0.2:
        orders.limit(1).delete().run(c)
    time.sleep(1)
