# The pinned versions of everything the tests run beside the broker. Sourced by
# install.sh and by the Makefile's shell lines; a change here rebuilds that tool.
MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
STATICCHECK_VERSION=v0.8.2
CONFLUENT_KAFKA_VERSION=2.16.1
KAFKAJS_VERSION=2.2.4
