// Prints COUNT records of a topic, read through a consumer group: for each a
// line of partition, offset, key length and value length, then key, value and a
// newline.
//
//	node consume.js BOOTSTRAP TOPIC COUNT
const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, topic, count] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: bootstrap.split(','), logLevel: logLevel.WARN })
const consumer = kafka.consumer({ groupId: `kafkajs-${process.pid}-${Date.now()}` })
let left = Number(count)
const next = new Map() // partition -> offset to print next

// The client starts over by itself after an error that passes, as when a
// coordinator moves; what it then shows again is not printed twice.
const print = (partition, message) => {
  if (Number(message.offset) < (next.get(partition) ?? 0)) return
  next.set(partition, Number(message.offset) + 1)
  left--
  const key = message.key ?? Buffer.alloc(0)
  const value = message.value ?? Buffer.alloc(0)
  const head = Buffer.from(`${partition} ${message.offset} ${key.length} ${value.length}\n`)
  process.stdout.write(Buffer.concat([head, key, value, Buffer.from('\n')]))
}

const main = async () => {
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const done = new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, event => {
      if (!event.payload.restart) reject(event.payload.error)
    })
    consumer.run({
      eachBatch: async ({ batch }) => {
        for (const message of batch.messages) {
          print(batch.partition, message)
        }
        if (left <= 0) resolve()
      },
    }).catch(reject)
  })
  await done
  await consumer.disconnect()
}

main().catch(err => {
  console.error(err)
  process.exit(1)
})
