# How ZooKeeper's programs are run; sourced. Small and quick to start: there are
# many.
#
#   java_of LOG_LEVEL CLASS ARGUMENT...
java_of() {
    level=$1
    shift
    # Where containers that are empty, and nodes whose time is over, are looked for each second.
    exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
        -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar \
        -Dorg.slf4j.simpleLogger.defaultLogLevel="$level" -Dorg.slf4j.simpleLogger.showDateTime=true \
        -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS -Dorg.slf4j.simpleLogger.showShortLogName=true \
        -Dzookeeper.jmx.log4j.disable=true -Dznode.container.checkIntervalMs=1000 "$@"
}

# Starts the server of this file.
server() {
    java_of info org.apache.zookeeper.server.quorum.QuorumPeerMain "$1"
}
