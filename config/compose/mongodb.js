// Makes a shop whose updates carry their documents, and keeps it busy.

if (!db.getCollectionNames().includes("orders")) {
  db.createCollection("orders", {changeStreamPreAndPostImages: {enabled: true}});
  db.orders.insertMany([...Array(1000).keys()].map(n => ({_id: n, customer: `customer ${n}`, status: "new", total: n})));
  print("the shop is made");
}
const random = below => Math.floor(Math.random() * below);
for (;;) {
  db.orders.insertOne({customer: `customer ${random(1000)}`, status: "new", total: random(100)});
  db.orders.updateOne({status: "new"}, {$set: {status: "paid"}});
  if (random(5) === 0) {
    db.orders.deleteOne({});
  }
  sleep(1000);
}
