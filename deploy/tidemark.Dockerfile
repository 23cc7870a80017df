# The broker, around the binary that `make images` builds.
FROM scratch
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY tidemark /tidemark
ENV TIDEMARK_DATA_DIR=/data TIDEMARK_LISTEN=0.0.0.0:9092 TIDEMARK_PEER=0.0.0.0:9093 TIDEMARK_HTTP=0.0.0.0:9094
VOLUME /data
EXPOSE 9092 9093 9094
ENTRYPOINT ["/tidemark"]
CMD ["serve"]
