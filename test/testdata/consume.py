"""Prints every record of a topic: a line of partition, offset, key length and
value length, then key, value and a newline.

    consume.py BOOTSTRAP TOPIC
"""
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

bootstrap, topic = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": "unused",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
})
partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])

out = sys.stdout.buffer
left = set(partitions)
while left:
    message = consumer.poll(30)
    if message is None:
        sys.exit("nothing for 30 s; not at the end of partitions %s" % sorted(left))
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(str(message.error()))
        left.discard(message.partition())
        continue
    key, value = message.key() or b"", message.value() or b""
    out.write(b"%d %d %d %d\n" % (message.partition(), message.offset(), len(key), len(value)))
    out.write(key + value + b"\n")
out.flush()
consumer.close()
