# etcd, around the binary that `make images` builds from its Go module.
FROM scratch
COPY etcd /etcd
VOLUME /data
EXPOSE 2379 2380
ENTRYPOINT ["/etcd"]
