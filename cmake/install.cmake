# Headers and a package that find_package(core_tokensets) finds.
if(NOT CTS_CAN_INSTALL)
  message(STATUS "core_tokensets cannot be installed from here: some of its dependencies are not")
  return()
endif()
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/core_tokensets)
if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.23)
  install(TARGETS core_tokensets EXPORT core_tokensets FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
else()
  install(TARGETS core_tokensets EXPORT core_tokensets)
  install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp")
endif()
install(EXPORT core_tokensets NAMESPACE core_tokensets:: FILE core_tokensets-targets.cmake DESTINATION ${package_dir})
write_basic_package_version_file(core_tokensets-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
configure_package_config_file(cmake/config.cmake.in core_tokensets-config.cmake INSTALL_DESTINATION ${package_dir})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/core_tokensets-config.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/core_tokensets-config-version.cmake cmake/stb.cmake
              cmake/cblas.cmake cmake/mpi.cmake cmake/xtensor.cmake cmake/cuda.cmake
        DESTINATION ${package_dir})
