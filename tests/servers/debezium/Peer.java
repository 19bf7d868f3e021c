import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.JsonByteArray;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Debezium's engine with Kafka's producer behind it, as Debezium Server's sink for Kafka is built. */
final class Peer {
    /** The files of the connector's and of the producer's properties. */
    public static void main(String[] files) throws Exception {
        var serializer = new ByteArraySerializer();
        try (var kafka = new KafkaProducer<byte[], byte[]>(read(files[1]), serializer, serializer);
                var engine = DebeziumEngine.create(JsonByteArray.class)
                        .using(read(files[0]))
                        .notifying((records, committer) -> publish(kafka, records, committer))
                        .build()) {
            engine.run();
        }
    }

    /** Sends a batch, waits until all of it is confirmed, and then lets the engine forget it. */
    private static void publish(
            KafkaProducer<byte[], byte[]> kafka,
            List<ChangeEvent<byte[], byte[]>> records,
            DebeziumEngine.RecordCommitter<ChangeEvent<byte[], byte[]>> committer)
            throws InterruptedException {
        List<Future<RecordMetadata>> sent = new ArrayList<>(records.size());
        for (var record : records) {
            sent.add(kafka.send(new ProducerRecord<>(record.destination(), record.key(), record.value())));
        }
        kafka.flush();
        for (int index = 0; index < records.size(); index++) {
            try {
                sent.get(index).get();
            } catch (java.util.concurrent.ExecutionException refused) {
                throw new IllegalStateException(refused);
            }
            committer.markProcessed(records.get(index));
        }
        committer.markBatchFinished();
    }

    private static Properties read(String file) throws Exception {
        var properties = new Properties();
        try (Reader reader = Files.newBufferedReader(Path.of(file))) {
            properties.load(reader);
        }
        return properties;
    }
}
