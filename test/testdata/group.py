"""Consumes records of a topic as a member of a group of the new protocol, commits
what it got and prints how many records it saw of each partition.

    group.py BOOTSTRAP TOPIC GROUP RECORDS
"""
import collections
import sys

from confluent_kafka import Consumer

bootstrap, topic, group, records = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": group,
    "group.protocol": "consumer",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
})
consumer.subscribe(["^" + topic[:-1] + ".$"])  # a regular expression, matched by the broker
seen = collections.Counter()
while sum(seen.values()) < int(records):
    message = consumer.poll(30)
    if message is None:
        sys.exit("nothing for 30 s after %d records" % sum(seen.values()))
    if message.error():
        sys.exit(str(message.error()))
    seen[message.partition()] += 1
consumer.commit(asynchronous=False)
consumer.close()
for partition in sorted(seen):
    print(partition, seen[partition])
