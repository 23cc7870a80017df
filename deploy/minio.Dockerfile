# MinIO, around the binary that `make images` builds from its Go module: there
# are no upstream images any more.
FROM scratch
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY minio /minio
VOLUME /data
EXPOSE 9000
ENTRYPOINT ["/minio"]
CMD ["server", "/data"]
