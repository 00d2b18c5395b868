include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Targets that were fetched cannot be exported; the package needs installed dependencies.
if(Eigen3_FOUND AND nlohmann_json_FOUND)
  install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(TARGETS core_tokensets EXPORT core_tokensets)
  install(EXPORT core_tokensets NAMESPACE core_tokensets:: FILE core_tokensets-targets.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/core_tokensets)
  write_basic_package_version_file(core_tokensets-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
  configure_package_config_file(cmake/config.cmake.in core_tokensets-config.cmake
                                INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/core_tokensets)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/core_tokensets-config.cmake
                ${CMAKE_CURRENT_BINARY_DIR}/core_tokensets-config-version.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/core_tokensets)
endif()
